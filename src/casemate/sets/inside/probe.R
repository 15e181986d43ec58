# Loads what is to be preloaded. The first argument is the status for the first name, the others are the names; for one
# that cannot be loaded the status says which, and stderr why.
words <- commandArgs(trailingOnly = TRUE)
for (number in seq_along(words[-1L])) {
    tryCatch(loadNamespace(words[[number + 1L]]), error = function(problem) {
        message(conditionMessage(problem))
        quit(save = "no", status = as.integer(words[[1L]]) + number - 1L)
    })
}
