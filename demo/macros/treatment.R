# Chilled against non-chilled plants: mean uptake over all measurements, mean of the plants' largest uptakes.

of <- function(treatment) {
    chosen <- Filter(function(plant) plant$treatment == treatment, input)
    list(
        plants = length(chosen),
        mean_uptake = mean(unlist(lapply(chosen, `[[`, "uptake"))),
        mean_maximum = mean(vapply(chosen, function(plant) max(plant$uptake), 0))
    )
}

chilled <- of("chilled")
nonchilled <- of("nonchilled")
output <- list(chilled = chilled, nonchilled = nonchilled, change = chilled$mean_uptake / nonchilled$mean_uptake - 1)
