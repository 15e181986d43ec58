# The grass-plant CO2 uptake measurements of R's own datasets package: 84 rows.
measurements <- datasets::CO2
measurements$Plant <- as.character(measurements$Plant)
output <- as.data.frame(measurements)[c("Plant", "Type", "Treatment", "conc", "uptake")]
