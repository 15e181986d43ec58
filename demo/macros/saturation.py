# One plant: its largest uptake, and the saturation curve uptake = vmax * conc / (k + conc) that fits it best.
# Started from the Hanes-Woolf line, refined by Gauss-Newton steps. The twins of this file are saturation.js and .R.

TOLERANCE = 1e-13
STEPS_MAX = 200


def hanes_woolf(conc, uptake):
    """The line conc/uptake = conc/vmax + k/vmax, by least squares."""
    ratio = [c / u for c, u in zip(conc, uptake)]
    mean_c, mean_r = sum(conc) / len(conc), sum(ratio) / len(ratio)
    above = sum((c - mean_c) * (r - mean_r) for c, r in zip(conc, ratio))
    slope = above / sum((c - mean_c) ** 2 for c in conc)
    return 1 / slope, (mean_r - slope * mean_c) / slope


def gauss_newton_step(conc, uptake, vmax, k):
    """What to add to vmax and k: the solution of the two normal equations."""
    a = b = c = p = q = 0.0
    for x, y in zip(conc, uptake):
        by_vmax = x / (k + x)
        by_k = -vmax * x / (k + x) ** 2
        rest = y - vmax * by_vmax
        a += by_vmax * by_vmax
        b += by_vmax * by_k
        c += by_k * by_k
        p += by_vmax * rest
        q += by_k * rest
    determinant = a * c - b * b
    return (c * p - b * q) / determinant, (a * q - b * p) / determinant


def fit(conc, uptake):
    vmax, k = hanes_woolf(conc, uptake)
    for _ in range(STEPS_MAX):
        more_vmax, more_k = gauss_newton_step(conc, uptake, vmax, k)
        vmax, k = vmax + more_vmax, k + more_k
        if abs(more_vmax) <= TOLERANCE * abs(vmax) and abs(more_k) <= TOLERANCE * abs(k):
            break
    return vmax, k


def r_squared(conc, uptake, vmax, k):
    mean = sum(uptake) / len(uptake)
    unexplained = sum((y - vmax * x / (k + x)) ** 2 for x, y in zip(conc, uptake))
    return 1 - unexplained / sum((y - mean) ** 2 for y in uptake)


def main(plant):
    conc, uptake = plant["conc"], plant["uptake"]
    vmax, k = fit(conc, uptake)
    return {"maximum": max(uptake), "vmax": vmax, "k": k, "r_squared": r_squared(conc, uptake, vmax, k)}
