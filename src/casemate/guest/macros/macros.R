# The functions that macros may call, in R; macros.py (with curves.py) and macros.js are its twins, docs/guides/macros.md
# the rules. The three do the same operations in the same order, so their results differ at most where a language's own
# logarithm, sine or reading of decimals does: hence loops where R has a function. Only base R is used.

base::local({

range_max <- 1e6
digits_max <- 15
degree_max <- 10
iterations_default <- 200
iterations_max <- 2000
polishing_max <- 50
singular <- 1e-12
ln2_high <- 0.6931471803691238
ln2_low <- 1.9082149292705877e-10
lifetimes <- 41
lifetime_ratio <- 1.2589254117941673
transforms <- c("none", "log", "ln", "x2")

# What was handed in -----------------------------------------------------------------------------

fail <- function(name, ...) stop(name, ": ", ..., call. = FALSE)

# A number as people write it, for messages.
count_text <- function(x) format(x, scientific = FALSE)

# I() marks arrays of one; it goes while they are reckoned with.
bare <- function(value) {
    if (inherits(value, "AsIs")) class(value) <- setdiff(class(value), "AsIs")
    value
}

array_of <- function(values) {
    if (!length(values)) list() else if (length(values) == 1L && is.atomic(values)) I(values) else values
}

# Values of one kind as a vector, others as a list; as arrays arrive from JSON.
vector_of <- function(values) {
    if (!length(values)) return(list())
    kinds <- vapply(values, kind, "")
    for (type in c("a number", "text", "a boolean")) {
        if (any(kinds == type) && all(kinds == type | kinds == "null")) {
            values[kinds == "null"] <- list(NA)
            return(array_of(unlist(values)))
        }
    }
    values
}

kind <- function(value) {
    if (is.null(value)) return("null")
    if (is.data.frame(value) || is.environment(value)) return("an object")
    if (is.list(value)) return(if (is.null(names(value))) "an array" else "an object")
    if (!is.atomic(value)) return("something else")
    if (length(value) != 1L || inherits(value, "AsIs") || !is.null(dim(value))) return("an array")
    if (is.factor(value) || is.character(value)) return(if (is.na(value)) "null" else "text")
    if (is.logical(value)) return(if (is.na(value)) "null" else "a boolean")
    if (is.numeric(value)) "a number" else "something else"
}

wants <- function(name, what, value, wanted) {
    if (kind(value) != wanted) fail(name, what, " is ", kind(value), ", not ", wanted)
    value
}

# Null, and a number that is not finite, are missing: NaN.
number <- function(name, what, value) {
    if (kind(value) == "null") return(NaN)
    value <- as.numeric(wants(name, what, value, "a number"))
    if (is.finite(value)) value else NaN
}

# A bare number is a vector of one in R, unless it stands for a row.
numbers <- function(name, what, value, row = FALSE) {
    if (!row && kind(value) == "a number") value <- I(value)
    value <- bare(wants(name, what, value, "an array"))
    if (is.numeric(value) && !is.factor(value)) {
        value <- as.numeric(value)
        value[!is.finite(value)] <- NaN
        return(value)
    }
    value <- as.list(value)
    vapply(seq_along(value), function(at) number(name, paste0(what, "[", at - 1L, "]"), value[[at]]), 0)
}

whole <- function(name, what, value, low, high = NULL) {
    wants(name, what, value, "a number")
    if (!is.finite(value) || value != floor(value) || value < low || (!is.null(high) && value > high)) {
        fail(name, what, " is not a whole number from ", low, " ", if (is.null(high)) "up" else paste("to", high))
    }
    as.numeric(value)
}

same_length <- function(name, first, a, second, b) {
    if (length(a) != length(b)) {
        fail(name, first, " has ", length(a), " values and ", second, " has ", length(b))
    }
}

# The rows of a list, a matrix or a data frame.
list_of_rows <- function(value) {
    if (is.data.frame(value)) return(lapply(seq_len(nrow(value)), function(at) unname(as.list(value[at, ]))))
    if (is.matrix(value)) return(lapply(seq_len(nrow(value)), function(at) I(as.vector(value[at, ]))))
    value
}

# Arrays of numbers as a list of rows, checked for their length.
number_rows <- function(name, what, value) {
    value <- as.list(bare(wants(name, what, list_of_rows(value), "an array")))
    lapply(seq_along(value), function(at) numbers(name, paste0(what, "[", at - 1L, "]"), value[[at]], row = TRUE))
}

rows_of <- function(name, value, width = NULL, what = "input") {
    rows <- number_rows(name, what, value)
    for (at in seq_along(rows)) {
        wanted <- if (is.null(width)) max(2L, length(rows[[1L]])) else width
        if (length(rows[[at]]) != wanted) {
            fail(name, what, "[", at - 1L, "] has ", length(rows[[at]]), " values, not ", wanted)
        }
    }
    rows
}

column <- function(rows, at) vapply(rows, function(row) row[[at]], 0)

pairs_of <- function(x, y) lapply(seq_along(x), function(at) c(x[[at]], y[[at]]))

# Numbers ----------------------------------------------------------------------------------------

known <- function(values) {
    values[!is.finite(values)] <- NA_real_
    values
}

quotient <- function(a, b) {
    value <- a / b
    value[rep_len(b == 0, length(value))] <- NaN
    value
}

root <- function(a) if (isTRUE(a >= 0)) sqrt(a) else NaN

# The sum, with what rounding lost added at the end (Neumaier).
total <- function(values) {
    total <- 0
    lost <- 0
    for (each in values) {
        more <- total + each
        lost <- lost + if (isTRUE(abs(total) >= abs(each))) (total - more) + each else (each - more) + total
        total <- more
    }
    total + lost
}

dot <- function(a, b) {
    total <- 0
    for (each in a * b) total <- total + each
    total
}

mean_of <- function(values) total(values) / length(values)

# The sum of the squared deviations from the mean, in two passes, corrected for the mean's rounding.
squares <- function(values) {
    if (max(values) == min(values)) return(0)
    off <- values - mean_of(values)
    rest <- total(off)
    total(off * off) - rest * rest / length(values)
}

# The exponential by basic arithmetic alone, so that iterations are the same in every language.
exponential <- function(x) {
    value <- rep(NaN, length(x))
    value[which(x >= 709.78)] <- Inf
    value[which(x < -745)] <- 0
    some <- which(x < 709.78 & x >= -745)
    x <- x[some]
    power <- floor(x / 0.6931471805599453 + 0.5)
    rest <- (x - power * ln2_high) - power * ln2_low
    series <- rep(1, length(x))
    for (term in 14:1) series <- 1 + rest / term * series
    half <- floor(power / 2)
    value[some] <- series * 2^half * 2^(power - half)
    value
}

# Householder's way; NULL if a column is one of the others put together.
least_squares <- function(columns, y) {
    diagonal <- numeric()
    norms <- vapply(columns, function(column) root(dot(column, column)), 0)
    n <- length(y)
    for (at in seq_along(columns)) {
        span <- at:n
        tail <- columns[[at]][span]
        alpha <- root(dot(tail, tail))
        if (!isTRUE(alpha > singular * norms[at])) return(NULL)
        if (tail[1L] > 0) alpha <- -alpha
        scale <- alpha * (alpha - tail[1L])
        tail[1L] <- tail[1L] - alpha
        for (other in seq_along(columns)[-seq_len(at)]) {
            share <- dot(tail, columns[[other]][span]) / scale
            columns[[other]][span] <- columns[[other]][span] - share * tail
        }
        share <- dot(tail, y[span]) / scale
        y[span] <- y[span] - share * tail
        diagonal[at] <- alpha
    }
    found <- numeric(length(columns))
    for (at in rev(seq_along(columns))) {
        rest <- y[at]
        for (after in seq_along(columns)[-seq_len(at)]) rest <- rest - columns[[after]][at] * found[after]
        found[at] <- rest / diagonal[at]
    }
    if (all(is.finite(found))) found else NULL
}

rest_of <- function(y, fitted) {
    off <- y - fitted
    total(off * off)
}

explained_by <- function(y, fitted) {
    all <- squares(y)
    if (isTRUE(all == 0)) NA_real_ else known(1 - rest_of(y, fitted) / all)
}

# Arrays -----------------------------------------------------------------------------------------

ArrayNth <- function(arr = NULL, size = 1, idx = 0) {
    if (kind(arr) == "a number") arr <- I(arr)
    values <- bare(wants("ArrayNth", "arr", arr, "an array"))
    size <- whole("ArrayNth", "size", size, 1)
    idx <- whole("ArrayNth", "idx", idx, 0)
    if (idx >= length(values)) return(list())
    chosen <- values[seq(idx + 1, length(values), by = size)]
    if (is.list(chosen)) vector_of(chosen) else array_of(chosen)
}

ArrayRange <- function(start = NULL, stop = NULL, step = 1, transform = "none") {
    start <- number("ArrayRange", "start", start)
    stop <- number("ArrayRange", "stop", stop)
    step <- number("ArrayRange", "step", step)
    if (kind(transform) != "text" || !transform %in% transforms) {
        fail("ArrayRange", "transform is none of: ", paste(transforms, collapse = ", "))
    }
    if (is.nan(start)) return(list())
    if (is.nan(stop)) {
        stop <- start
        start <- 0
    }
    if (is.nan(step) || step == 0) fail("ArrayRange", "step is 0")
    count <- (stop - start) / step
    if (!isTRUE(count <= range_max)) fail("ArrayRange", "more than ", count_text(range_max), " values")
    values <- start + (seq_len(max(0, ceiling(count))) - 1) * step
    logarithm <- function(f) {
        value <- rep(NA_real_, length(values))
        value[values > 0] <- f(values[values > 0])
        value
    }
    array_of(switch(transform, none = values, x2 = values * values, ln = logarithm(log), log = logarithm(log10)))
}

ArrayUnZip <- function(input = NULL) {
    rows <- as.list(bare(wants("ArrayUnZip", "input", list_of_rows(input), "an array")))
    for (at in seq_along(rows)) {
        if (kind(rows[[at]]) != "an array" || length(rows[[at]]) != 2L) {
            fail("ArrayUnZip", "input[", at - 1L, "] is not an array of two values")
        }
    }
    list(x = vector_of(lapply(rows, `[[`, 1L)), y = vector_of(lapply(rows, `[[`, 2L)))
}

ArrayZip <- function(x = NULL, y = NULL) {
    if (kind(x) == "a number") x <- I(x)
    if (kind(y) == "a number") y <- I(y)
    x <- bare(wants("ArrayZip", "x", x, "an array"))
    y <- bare(wants("ArrayZip", "y", y, "an array"))
    same_length("ArrayZip", "x", x, "y", y)
    lapply(seq_along(x), function(at) vector_of(list(x[[at]], y[[at]])))
}

# Protocols --------------------------------------------------------------------------------------

# The set's protocols; NULL if there is no set.
protocols_of <- function(name, json) {
    if (is.null(json)) return(NULL)
    if (!identical(json, list())) wants(name, "json", json, "an object")
    set <- json[["set"]]
    if (kind(set) == "an array") as.list(set) else NULL
}

label_of <- function(protocol) if (kind(protocol) == "an object") protocol[["label"]] else NULL

labelled <- function(name, label, json, array) {
    wants(name, "array", array, "a boolean")
    if (kind(label) != "null") label <- as.character(wants(name, "label", label, "text"))
    protocols <- protocols_of(name, json)
    if (is.null(protocols) || kind(label) == "null") return(NULL)
    same <- vapply(protocols, function(each) identical(label_of(each), label), NA)
    if (any(same) || array) which(same) - 1 else NULL
}

GetIndexByLabel <- function(label = NULL, json = NULL, array = FALSE) {
    found <- labelled("GetIndexByLabel", label, json, array)
    if (is.null(found) || (length(found) == 1L && !array)) found else array_of(found)
}

GetProtocolByLabel <- function(label = NULL, json = NULL, array = FALSE) {
    found <- labelled("GetProtocolByLabel", label, json, array)
    if (is.null(found)) return(NULL)
    protocols <- as.list(json[["set"]])[found + 1]
    if (length(protocols) == 1L && !array) protocols[[1L]] else protocols
}

GetLabelLookup <- function(json = NULL) {
    protocols <- protocols_of("GetLabelLookup", json)
    if (is.null(protocols)) return(NULL)
    lookup <- list()
    for (at in seq_along(protocols)) {
        label <- label_of(protocols[[at]])
        if (kind(label) == "text" && label != "") lookup[[label]] <- c(lookup[[label]], at - 1)
    }
    if (!length(lookup)) return(structure(list(), names = character()))
    lapply(lookup, array_of)
}

# Statistics -------------------------------------------------------------------------------------

# What `use` makes of the values; NA if there are too few, or one is missing.
of_values <- function(name, values, least, use) {
    values <- numbers(name, "values", values)
    if (length(values) < least || anyNA(values)) NA_real_ else known(use(values))
}

MathMAX <- function(values = NULL) of_values("MathMAX", values, 1L, max)
MathMIN <- function(values = NULL) of_values("MathMIN", values, 1L, min)
MathSUM <- function(values = NULL) of_values("MathSUM", values, 1L, total)
MathMEAN <- function(values = NULL) of_values("MathMEAN", values, 1L, mean_of)
MathMEDIAN <- function(values = NULL) of_values("MathMEDIAN", values, 1L, function(values) {
    values <- sort(values)
    middle <- length(values) %/% 2L
    if (length(values) %% 2L) values[middle + 1L] else (values[middle] + values[middle + 1L]) / 2
})
sample_variance <- function(values) squares(values) / (length(values) - 1)
deviation <- function(values) root(squares(values) / length(values))
MathVARIANCE <- function(values = NULL) of_values("MathVARIANCE", values, 2L, sample_variance)
MathSTDEVS <- function(values = NULL) of_values("MathSTDEVS", values, 2L, function(each) root(sample_variance(each)))
MathSTDEV <- function(values = NULL) of_values("MathSTDEV", values, 1L, deviation)
MathSTDERR <- function(values = NULL) {
    of_values("MathSTDERR", values, 1L, function(values) deviation(values) / root(length(values)))
}

MathLN <- function(value = NULL) {
    value <- number("MathLN", "value", value)
    if (isTRUE(value > 0)) log(value) else NA_real_
}

MathLOG <- function(value = NULL) {
    value <- number("MathLOG", "value", value)
    if (isTRUE(value > 0)) log10(value) else NA_real_
}

MathROUND <- function(value = NULL, digits = 2) {
    value <- number("MathROUND", "value", value)
    digits <- whole("MathROUND", "digits", digits, -digits_max, digits_max)
    if (is.nan(value)) return(NA_real_)
    sign <- if (value < 0) -1 else 1
    size <- abs(value)
    if (digits < 0) {
        unit <- 10^-digits
        return(sign * floor(size / unit + 0.5) * unit)
    }
    # All decimals of a number that could be a tie, which C would give to the even neighbour.
    exact <- sprintf("%.120f", size)
    point <- regexpr(".", exact, fixed = TRUE)
    if (grepl("^50*$", substring(exact, point + digits + 1L))) size <- size * (1 + 2^-52)
    sign * as.numeric(sprintf("%.*f", as.integer(digits), size))
}

# Regressions ------------------------------------------------------------------------------------

MathLINREG <- function(x = NULL, y = NULL) {
    x <- numbers("MathLINREG", "x", x)
    y <- numbers("MathLINREG", "y", y)
    same_length("MathLINREG", "x", x, "y", y)
    if (length(x) < 2L || anyNA(x) || anyNA(y) || max(x) == min(x)) return(NULL)
    mean_x <- mean_of(x)
    mean_y <- mean_of(y)
    across <- total((x - mean_x) * (y - mean_y))
    wide <- squares(x)
    high <- squares(y)
    m <- quotient(across, wide)
    r <- if (isTRUE(high > 0)) quotient(across, root(wide) * root(high)) else NaN
    if (is.finite(r)) r <- max(-1, min(1, r))
    list(m = known(m), b = known(mean_y - m * mean_x), r = known(r), r2 = known(r * r))
}

# Intercept and slopes, and what they say for each row.
regression <- function(columns, y) {
    predictors <- c(list(rep(1, length(y))), columns)
    if (length(y) < length(predictors) || anyNA(unlist(columns)) || anyNA(y)) return(NULL)
    found <- least_squares(predictors, y)
    if (is.null(found)) return(NULL)
    fitted <- rep(0, length(y))
    for (at in seq_along(found)) fitted <- fitted + predictors[[at]] * found[at]
    list(slopes = found, fitted = fitted)
}

MathMULTREG <- function(input = NULL) {
    rows <- rows_of("MathMULTREG", input)
    if (!length(rows)) return(NULL)
    columns <- lapply(seq_along(rows[[1L]]), function(at) column(rows, at))
    y <- columns[[length(columns)]]
    columns <- columns[-length(columns)]
    found <- regression(columns, y)
    if (is.null(found)) return(NULL)
    explained <- explained_by(y, found$fitted)
    list(
        rsquared = explained, r_squared = explained, intercept = found$slopes[1L], slopes = found$slopes,
        coefficients = found$slopes, points = c(columns, list(found$fitted))
    )
}

MathPOLYREG <- function(input = NULL, degree = NULL) {
    rows <- rows_of("MathPOLYREG", input, 2L)
    degree <- whole("MathPOLYREG", "degree", degree, 1, degree_max)
    x <- column(rows, 1L)
    y <- column(rows, 2L)
    powers <- list(x)
    while (length(powers) < degree) powers <- c(powers, list(powers[[length(powers)]] * x))
    found <- regression(powers, y)
    if (is.null(found)) return(NULL)
    explained <- explained_by(y, found$fitted)
    list(
        points = pairs_of(x, found$fitted), slopes = found$slopes, coefficients = found$slopes, degree = degree,
        error = rest_of(y, found$fitted) / (length(y) - 1), rsquared = explained, r_squared = explained
    )
}

# Curves -----------------------------------------------------------------------------------------

# Of each its values at x, and its derivatives by its three parameters.
equations <- list(
    "b + a * e(- x / c)" = function(p, x) {
        part <- exponential(quotient(-x, p[3L]))
        list(p[2L] + p[1L] * part, part, rep(1, length(x)), quotient(p[1L] * part * x, p[3L] * p[3L]))
    },
    "( a - c ) * e( - b * t ) + c" = function(p, x) {
        part <- exponential(-p[2L] * x)
        list((p[1L] - p[3L]) * part + p[3L], part, -(p[1L] - p[3L]) * x * part, 1 - part)
    },
    # a x / (x + b) is the same as a / (1 + b / x).
    "( c + a / ( 1 + b / x ) )" = function(p, x) {
        part <- quotient(x, x + p[2L])
        list(p[3L] + p[1L] * part, part, -quotient(p[1L] * part, x + p[2L]), rep(1, length(x)))
    },
    "( c + a * a / ( 1 + b / x ) )" = function(p, x) {
        part <- quotient(x, x + p[2L])
        value <- p[1L] * p[1L] * part
        list(p[3L] + value, 2 * p[1L] * part, -quotient(value, x + p[2L]), rep(1, length(x)))
    }
)

# A curve beside its data: what it says there, how far off that is, and its derivatives as columns.
fit_of <- function(curve, x, y, p) {
    at <- curve(p, x)
    off <- y - at[[1L]]
    list(p = p, fitted = at[[1L]], off = off, columns = at[-1L], rest = total(off * off))
}

# Lengths of the columns, and the Cholesky factor of the normal equations in units of them.
inverse_of <- function(fit, damping) {
    columns <- fit$columns
    lengths <- vapply(columns, function(column) root(dot(column, column)), 0)
    if (!isTRUE(all(lengths > 0 & lengths < Inf))) return(NULL)
    factor <- matrix(0, 3L, 3L)
    for (i in 1:3) for (j in 1:i) {
        rest <- if (i == j) 1 + damping else dot(columns[[i]], columns[[j]]) / (lengths[i] * lengths[j])
        for (k in seq_len(j - 1L)) rest <- rest - factor[i, k] * factor[j, k]
        if (i == j && !isTRUE(rest > singular)) return(NULL)
        factor[i, j] <- if (i == j) root(rest) else rest / factor[j, j]
    }
    list(lengths = lengths, factor = factor)
}

# The solution of factor * transposed(factor) * x = right.
solved <- function(factor, right) {
    half <- numeric(3L)
    for (i in 1:3) {
        rest <- right[i]
        for (k in seq_len(i - 1L)) rest <- rest - factor[i, k] * half[k]
        half[i] <- rest / factor[i, i]
    }
    found <- numeric(3L)
    for (i in 3:1) {
        rest <- half[i]
        for (k in (1:3)[1:3 > i]) rest <- rest - factor[k, i] * found[k]
        found[i] <- rest / factor[i, i]
    }
    found
}

# What to add to the parameters, and how much of the data's size that moves the curve by.
step_of <- function(fit, damping) {
    inverse <- inverse_of(fit, damping)
    if (is.null(inverse)) return(NULL)
    right <- vapply(1:3, function(at) dot(fit$columns[[at]], fit$off) / inverse$lengths[at], 0)
    moves <- solved(inverse$factor, right)
    list(step = moves / inverse$lengths, size = max(abs(moves)))
}

# Levenberg's and Marquardt's way until the steps are small, then Gauss's and Newton's until they stop shrinking.
fitted_to <- function(curve, x, y, start, most) {
    if (length(y) < 3L || max(y) == min(y)) return(NULL)
    size <- root(dot(y, y))
    fit <- fit_of(curve, x, y, start)
    damping <- 1e-3
    for (count in seq_len(most)) {
        found <- if (is.finite(fit$rest)) step_of(fit, damping) else NULL
        if (is.null(found)) return(NULL)
        trial <- fit_of(curve, x, y, fit$p + found$step)
        small <- damping <= 1 && isTRUE(found$size <= 1e-7 * size)
        if (isTRUE(trial$rest <= fit$rest) || (small && is.finite(trial$rest))) {
            fit <- trial
            damping <- damping / 10
        } else {
            damping <- damping * 10
        }
        if (small) return(list(fit = polished(curve, x, y, fit), count = count))
    }
    NULL
}

polished <- function(curve, x, y, fit) {
    last <- Inf
    for (count in seq_len(polishing_max)) {
        found <- step_of(fit, 0)
        if (is.null(found) || !isTRUE(found$size < last)) break
        trial <- fit_of(curve, x, y, fit$p + found$step)
        if (!is.finite(trial$rest)) break
        fit <- trial
        last <- found$size
    }
    fit
}

# Where to begin: of some lifetimes the one with which a decay comes closest, and that decay.
nearest_decay <- function(x, y) {
    lifetime <- max(x) * 0.01
    best <- Inf
    found <- c(0, 0, 0)
    mean_y <- mean_of(y)
    for (count in seq_len(lifetimes)) {
        part <- exponential(-x / lifetime)
        middle <- mean_of(part)
        wide <- squares(part)
        a <- quotient(total((part - middle) * (y - mean_y)), wide)
        rest <- rest_of(y, mean_y + a * (part - middle))
        if (isTRUE(rest < best)) {
            best <- rest
            found <- c(a, mean_y - a * middle, lifetime)
        }
        lifetime <- lifetime * lifetime_ratio
    }
    found
}

MathEXPINVREG <- function(input = NULL) {
    rows <- rows_of("MathEXPINVREG", input, 2L)
    x <- column(rows, 1L)
    y <- column(rows, 2L)
    if (length(rows) < 3L || anyNA(x) || anyNA(y) || max(x) == min(x)) return(NULL)
    first <- min(x)
    shifted <- x - first
    found <- fitted_to(equations[["b + a * e(- x / c)"]], shifted, y, nearest_decay(shifted, y), iterations_default)
    if (is.null(found)) return(NULL)
    fit <- found$fit
    b <- fit$p[2L]
    c <- fit$p[3L]
    a <- fit$p[1L] * exponential(quotient(first, c))
    explained <- explained_by(y, fit$fitted)
    list(
        points = pairs_of(x, fit$fitted), results = base::c(known(a), known(quotient(-1, c))),
        error = fit$rest / (length(y) - 1), asymptote = b, lifetime = c, slope = known(quotient(a, c)),
        rsquared = explained, r_squared = explained, y0 = b, a = known(a), t = c, parameters = base::c(b, known(a), c)
    )
}

options_of <- function(data, options) {
    name <- "NonLinearRegression"
    rows <- rows_of(name, data, 2L, "data")
    if (!identical(options, list())) wants(name, "options", options, "an object")
    for (option in sort(names(options), method = "radix")) {
        if (!option %in% c("equation", "initial", "iterations")) fail(name, "options.", option, " is not supported")
    }
    written <- options[["equation"]]
    short <- function(text) gsub(" ", "", text, fixed = TRUE)
    found <- if (kind(written) == "text") which(short(names(equations)) == short(written)) else integer()
    if (!length(found)) fail(name, "options.equation is none of: ", paste(names(equations), collapse = ", "))
    initial <- numbers(name, "options.initial", options[["initial"]])
    if (length(initial) != 3L) fail(name, "options.initial has ", length(initial), " values, not 3")
    most <- if ("iterations" %in% names(options)) options[["iterations"]] else iterations_default
    most <- whole(name, "options.iterations", most, 1, iterations_max)
    list(rows = rows, equation = names(equations)[found], initial = initial, most = most)
}

NonLinearRegression <- function(data = NULL, options = NULL) {
    given <- options_of(data, options)
    x <- column(given$rows, 1L)
    y <- column(given$rows, 2L)
    if (anyNA(x) || anyNA(y) || anyNA(given$initial)) return(NULL)
    found <- fitted_to(equations[[given$equation]], x, y, given$initial, given$most)
    if (is.null(found)) return(NULL)
    fit <- found$fit
    freedom <- length(y) - 3
    error <- root(fit$rest / max(1, freedom))
    list(
        text = paste("Y =", given$equation), r2 = explained_by(y, fit$fitted), RMS_error = error,
        iterations = found$count, parameters = parameters_of(fit, error, freedom), points = pairs_of(x, fit$fitted)
    )
}

parameters_of <- function(fit, error, freedom) {
    inverse <- inverse_of(fit, 0)
    lapply(1:3, function(at) {
        value <- fit$p[at]
        deviation <- NaN
        if (!is.null(inverse) && freedom > 0) {
            deviation <- error * root(solved(inverse$factor, as.numeric(1:3 == at))[at]) / inverse$lengths[at]
        }
        chance <- two_sided(quotient(value, deviation), freedom)
        list(name = paste0("P", at), value = value, sd_error = known(deviation), p = known(chance))
    })
}

# How likely Student's t is to be further from 0: the incomplete beta function by its continued fraction.
two_sided <- function(t, freedom) {
    if (!is.finite(t)) return(NaN)
    x <- freedom / (freedom + t * t)
    # The fraction converges fast on this side; on the other one its mirror image does.
    if (x < (freedom / 2 + 1) / (freedom / 2 + 2.5)) return(beta_share(x, 1 - x, freedom, 1))
    1 - beta_share(t * t / (freedom + t * t), x, 1, freedom)
}

# The incomplete beta function of one/2 and other/2 at x, relative to the complete one (Lentz's way).
beta_share <- function(x, rest, one, other) {
    a <- one / 2
    b <- other / 2
    above <- 1
    below <- 1 / (1 - (a + b) * x / (a + 1))
    value <- below
    for (m in 1:300) {
        for (term in c(
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        )) {
            below <- 1 / (1 + term * below)
            above <- 1 + term / above
            value <- value * (below * above)
        }
        if (abs(below * above - 1) < 1e-15) break
    }
    power(root(x), one) * power(root(rest), other) / (a * beta(max(one, other))) * value
}

# The complete beta function of doubled/2 and 1/2.
beta <- function(doubled) {
    value <- if (doubled %% 2) pi else 2
    at <- if (doubled %% 2) 1 else 2
    while (at < doubled) {
        value <- value * (at / (at + 1))
        at <- at + 2
    }
    value
}

power <- function(base, exponent) {
    value <- 1
    while (exponent > 0) {
        if (exponent %% 2) value <- value * base
        base <- base * base
        exponent <- exponent %/% 2
    }
    value
}

# Traces -----------------------------------------------------------------------------------------

arithmetic <- list(
    add = `+`, "+" = `+`, subtract = `-`, "-" = `-`, multiply = `*`, "*" = `*`, divide = quotient, "/" = quotient
)
traces <- c(
    names(arithmetic), "normToMin", "normToMax", "normToRange", "normToIdx", "normToVal", "ma", "sgf", "abs"
)

TransformTrace <- function(fn = NULL, a1 = NULL, a2 = NULL) {
    if (kind(fn) != "text" || !fn %in% traces) fail("TransformTrace", "fn is none of: ", paste(traces, collapse = ", "))
    trace <- numbers("TransformTrace", "a1", a1)
    if (fn %in% names(arithmetic)) return(array_of(known(paired(fn, trace, a2))))
    if (!length(trace)) list() else array_of(known(shaped(fn, trace, a2)))
}

paired <- function(fn, trace, second) {
    if (kind(second) == "an array") {
        others <- numbers("TransformTrace", "a2", second)
        same_length("TransformTrace", "a1", trace, "a2", others)
    } else if (kind(second) == "a number") {
        others <- rep(number("TransformTrace", "a2", second), length(trace))
    } else {
        fail("TransformTrace", "a2 is ", kind(second), ", not a number or an array")
    }
    arithmetic[[fn]](trace, others)
}

shaped <- function(fn, trace, second) {
    n <- length(trace)
    if (fn == "ma") {
        wide <- c(trace[1L], trace, trace[n])
        return((wide[seq_len(n)] + wide[seq_len(n) + 1L] + wide[seq_len(n) + 2L]) / 3)
    }
    if (fn == "sgf") return(smoothed(trace))
    if (fn == "abs") {
        first <- if (kind(second) == "null") trace[1L] else number("TransformTrace", "a2", second)
        shares <- if (isTRUE(first > 0)) quotient(trace, first) else rep(NaN, n)
        shares[which(!shares > 0)] <- NaN
        return(0 - log10(shares))
    }
    if (fn == "normToVal") {
        return(quotient(trace, number("TransformTrace", "a2", wants("TransformTrace", "a2", second, "a number"))))
    }
    if (fn == "normToIdx") return(quotient(trace, trace[whole("TransformTrace", "a2", second, 0, n - 1) + 1]))
    if (anyNA(trace)) return(rep(NaN, n))
    low <- min(trace)
    high <- max(trace)
    switch(fn,
        normToRange = quotient(trace - low, high - low),
        normToMin = quotient(trace, low),
        normToMax = quotient(trace, high))
}

# Savitzky's and Golay's filter: parabolas through seven values each, of a trace mirrored at its ends.
smoothed <- function(trace) {
    n <- length(trace)
    if (n < 7L) return(trace)
    w <- c(trace[3:1], trace, trace[n:(n - 2L)])
    i <- seq_len(n) + 3L
    (-2 * w[i - 3L] + 3 * w[i - 2L] + 6 * w[i - 1L] + 7 * w[i] + 6 * w[i + 1L] + 3 * w[i + 2L] - 2 * w[i + 3L]) / 21
}

# The sun ----------------------------------------------------------------------------------------

calcSunAngle <- function(roll = NULL, pitch = NULL, compass = NULL, azimuth = NULL, altitude = NULL) {
    angle <- function(what, value) number("calcSunAngle", what, value) * (pi / 180)
    r <- angle("roll", roll)
    p <- angle("pitch", pitch)
    c <- angle("compass", compass)
    az <- angle("azimuth", azimuth)
    alt <- angle("altitude", altitude)
    if (anyNA(base::c(r, p, c, az, alt))) return(NULL)
    device <- base::c(sin(r) * cos(p), -sin(p), cos(r) * cos(p))
    sun <- base::c(cos(alt) * sin(az - c), cos(alt) * cos(az - c), sin(alt))
    cross <- base::c(
        device[2L] * sun[3L] - device[3L] * sun[2L],
        device[3L] * sun[1L] - device[1L] * sun[3L],
        device[1L] * sun[2L] - device[2L] * sun[1L]
    )
    along <- dot(device, sun)
    list(angle = atan2(root(dot(cross, cross)), along) / (pi / 180), percent = 100 * max(0, along))
}

# Messages ---------------------------------------------------------------------------------------

# Appends to `output$messages$<level>`. An environment is changed where it is; a list, being a value, is put back under
# the name that the call gives it (`output` if it gives none), in the frame where that name is found.
say <- function(level, msg, name, output, frame) {
    if (!identical(output, list())) wants(level, "output", output, "an object")
    messages <- output[["messages"]]
    if (length(messages)) wants(level, "output.messages", messages, "an object") else messages <- list()
    said <- messages[[level]]
    if (!is.null(said) && !is.character(said)) wants(level, paste0("output.messages.", level), said, "an array")
    messages[[level]] <- c(as.list(said), list(msg))
    if (is.environment(output)) {
        assign("messages", messages, envir = output)
    } else {
        output[["messages"]] <- messages
        if (is.symbol(name)) assign(as.character(name), output, envir = home_of(as.character(name), frame))
    }
    invisible(output)
}

home_of <- function(name, frame) {
    place <- frame
    while (!identical(place, emptyenv())) {
        if (exists(name, envir = place, inherits = FALSE)) return(place)
        place <- parent.env(place)
    }
    frame
}

speaker <- function(level) {
    force(level)
    function(msg = NULL, output) {
        frame <- parent.frame()
        if (missing(output)) return(say(level, msg, quote(output), get0("output", envir = frame), frame))
        say(level, msg, substitute(output), output, frame)
    }
}

info <- speaker("info")
warning <- speaker("warning")
danger <- speaker("danger")

all <- c(
    "ArrayNth", "ArrayRange", "ArrayUnZip", "ArrayZip", "GetIndexByLabel", "GetLabelLookup", "GetProtocolByLabel",
    "MathEXPINVREG", "MathLINREG", "MathLN", "MathLOG", "MathMAX", "MathMEAN", "MathMEDIAN", "MathMIN", "MathMULTREG",
    "MathPOLYREG", "MathROUND", "MathSTDERR", "MathSTDEV", "MathSTDEVS", "MathSUM", "MathVARIANCE",
    "NonLinearRegression", "TransformTrace", "calcSunAngle", "danger", "info", "warning"
)
list2env(mget(all), envir = parent.env(environment()))
base::invisible(NULL)
})
