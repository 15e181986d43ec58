# One plant: its largest uptake, and the saturation curve uptake = vmax * conc / (k + conc) that fits it best.
# Started from the Hanes-Woolf line, refined by Gauss-Newton steps. The twins of this file are saturation.py and .js.

tolerance <- 1e-13
steps_max <- 200

# The line conc/uptake = conc/vmax + k/vmax, by least squares.
hanes_woolf <- function(conc, uptake) {
    ratio <- conc / uptake
    slope <- sum((conc - mean(conc)) * (ratio - mean(ratio))) / sum((conc - mean(conc))^2)
    c(1 / slope, (mean(ratio) - slope * mean(conc)) / slope)
}

# What to add to vmax and k: the solution of the two normal equations.
gauss_newton_step <- function(conc, uptake, vmax, k) {
    by_vmax <- conc / (k + conc)
    by_k <- -vmax * conc / (k + conc)^2
    rest <- uptake - vmax * by_vmax
    a <- sum(by_vmax * by_vmax)
    b <- sum(by_vmax * by_k)
    c <- sum(by_k * by_k)
    p <- sum(by_vmax * rest)
    q <- sum(by_k * rest)
    c((c * p - b * q), (a * q - b * p)) / (a * c - b * b)
}

fit <- function(conc, uptake) {
    found <- hanes_woolf(conc, uptake)
    for (step in seq_len(steps_max)) {
        more <- gauss_newton_step(conc, uptake, found[1], found[2])
        found <- found + more
        if (all(abs(more) <= tolerance * abs(found))) break
    }
    found
}

main <- function(plant) {
    found <- fit(plant$conc, plant$uptake)
    unexplained <- sum((plant$uptake - found[1] * plant$conc / (found[2] + plant$conc))^2)
    list(
        maximum = max(plant$uptake), vmax = found[1], k = found[2],
        r_squared = 1 - unexplained / sum((plant$uptake - mean(plant$uptake))^2)
    )
}
