# The site profile of R, which then runs the program by its own means:
# `R_PROFILE=<this file> R --no-echo --no-restore --no-environ --no-init-file -e '#'`.
#
# Descriptor 3 carries the request, descriptor 4 takes the reply. For `-e` R has opened a file that is deleted already
# and that it reads when all profiles are done: it gets the program's text. So what is printed and how an error ends
# the program are those of `Rscript FILE`. Only base R is used; jsonlite need not be there.

base::local({

value_max_bytes <- 10 * 1024 * 1024
depth_max <- 200L
text_max_chars <- 16384L
large_bytes <- 2^20
replacement <- "\ufffd"
process <- Sys.getpid()

# Values from JSON -------------------------------------------------------------------------------

# Arrays of numbers, of texts or of logicals (nulls among them are NA) become vectors, arrays of one I(vectors),
# other arrays lists, objects named lists. The text is known to be valid.
parse_json <- function(text) {
    pattern <- '"[^"\\\\]*+(?:\\\\.[^"\\\\]*+)*+"|[][{}]|[-+.0-9a-zA-Z]++'
    found <- gregexpr(pattern, text, perl = TRUE, useBytes = TRUE)[[1L]]
    Encoding(text) <- "bytes"
    tokens <- substring(text, found, found + attr(found, "match.length") - 1L)
    build(tokens, substr(tokens, 1L, 1L))
}

build <- function(tokens, first) {
    is_text <- first == "\""
    is_number <- first == "-" | (first >= "0" & first <= "9")
    texts <- rep(NA_character_, length(tokens))
    texts[is_text] <- unquote(tokens[is_text])
    numbers <- rep(NA_real_, length(tokens))
    numbers[is_number] <- numbers_of(tokens[is_number])
    is_null <- first == "n"
    opens <- which(first == "[" | first == "{")
    closes <- which(first == "]" | first == "}")
    # For each opening token: whether nothing opens before it is closed, and where that is.
    close_of <- closes[findInterval(opens, closes) + 1L]
    is_flat <- c(opens[-1L], Inf) > close_of
    flat_close <- integer(length(tokens))
    flat_close[opens[is_flat]] <- close_of[is_flat]
    at <- 0L

    scalars <- vector("list", length(tokens))
    scalars[is_text] <- as.list(texts[is_text])
    scalars[is_number] <- as.list(numbers[is_number])
    is_logical <- first == "t" | first == "f"
    scalars[is_logical] <- as.list(first[is_logical] == "t")

    flat_array <- function(from, to) {
        if (from > to) return(list())
        span <- from:to
        null <- is_null[span]
        if (all(null) || all(is_logical[span] | null)) {
            values <- first[span] == "t"
            values[null] <- NA
        } else if (all(is_number[span] | null)) {
            values <- numbers[span]
        } else if (all(is_text[span] | null)) {
            values <- texts[span]
        } else {
            return(scalars[span])
        }
        if (length(values) == 1L) I(values) else values
    }
    flat_object <- function(from, to) {
        if (from > to) return(named(list(), character()))
        span <- from:to
        named(scalars[span[c(FALSE, TRUE)]], texts[span[c(TRUE, FALSE)]])
    }
    named <- function(values, names) {
        names(values) <- names
        values
    }
    nested <- function(is_object) {
        values <- list()
        names <- character()
        repeat {
            at <<- at + 1L
            if (first[at] == "]" || first[at] == "}") break
            if (is_object) {
                names[length(names) + 1L] <- texts[at]
                at <<- at + 1L
            }
            values[length(values) + 1L] <- list(value())
        }
        if (is_object) named(values, names) else values
    }
    # The value that begins at `at`, which is then at its last token.
    value <- function() {
        start <- at
        is_object <- first[start] == "{"
        if (!is_object && first[start] != "[") return(scalars[[start]])
        to <- flat_close[start]
        if (to == 0L) return(nested(is_object))
        at <<- to
        if (is_object) flat_object(start + 1L, to - 1L) else flat_array(start + 1L, to - 1L)
    }
    at <- 1L
    value()
}

# The numbers that the texts name. R's own reading may miss the nearest double by one: what is left over says so.
# Text = digits * 10^-shift; both sides are compared in twice the precision, as pairs of a number and what it lacks.
numbers_of <- function(tokens) {
    x <- as.numeric(tokens)
    find <- function(what) regexpr(what, tokens, fixed = TRUE, useBytes = TRUE)
    point <- find(".")
    power <- pmax(find("e"), find("E"))
    some <- which((point > 0L | power > 0L) & is.finite(x) & abs(x) > 1e-290 & abs(x) < 1e290)
    if (!length(some)) return(x)
    size <- abs(x[some])
    parts <- digits_of(tokens[some], size, point[some], power[some])
    named <- scaled(parts$digits, pmax(-parts$shift, 0))
    held <- scaled(list(size, 0), pmax(parts$shift, 0))
    left <- (named[[1L]] - held[[1L]]) + (named[[2L]] - held[[2L]])
    two <- floor(log2(size))
    unit <- 2^(two - (2^two > size) - 52)
    half <- held[[1L]] / size * unit / 2
    off <- which(abs(left) > half & abs(left) < 4 * half & parts$count <= 22L)
    x[some[off]] <- sign(x[some[off]]) * (size[off] + sign(left[off]) * unit[off])
    x
}

# The digits of decimal texts as pairs, and how many of them are decimals.
digits_of <- function(texts, size, point, power) {
    end <- nchar(texts, "bytes")
    shift <- numeric(length(texts))
    whole <- trunc(size)
    has <- which(power > 0L)
    if (length(has)) {
        shift[has] <- -as.numeric(substr(texts[has], power[has] + 1L, end[has]))
        end[has] <- power[has] - 1L
    }
    point[point < 0L] <- end[point < 0L] + 1L
    if (length(has)) whole[has] <- abs(as.numeric(substr(texts[has], 1L, point[has] - 1L)))
    count <- pmax(end - point, 0L)
    head <- numeric(length(texts))
    tail <- head
    some <- which(count > 0L)
    head[some] <- as.numeric(substr(texts[some], point[some] + 1L, pmin(point[some] + 9L, end[some])))
    more <- which(count > 9L)
    tail[more] <- as.numeric(substr(texts[more], point[more] + 10L, end[more]))
    digits <- plus(times(list(whole, 0), 10^pmin(count, 22L)), head * 10^pmax(count - 9L, 0L))
    list(digits = plus(digits, tail), shift = shift + count, count = count)
}

# A pair times a number, exact up to the pair's precision (after Dekker).
times <- function(pair, factor) {
    split <- function(a) {
        c <- 134217729 * a
        head <- c - (c - a)
        list(head, a - head)
    }
    a <- split(pair[[1L]])
    b <- split(factor)
    product <- pair[[1L]] * factor
    lack <- ((a[[1L]] * b[[1L]] - product) + a[[1L]] * b[[2L]] + a[[2L]] * b[[1L]]) + a[[2L]] * b[[2L]]
    list(product, lack + pair[[2L]] * factor)
}

plus <- function(pair, number) {
    sum <- pair[[1L]] + number
    rest <- sum - pair[[1L]]
    list(sum, (pair[[1L]] - (sum - rest)) + (number - rest) + pair[[2L]])
}

# A pair times powers of ten, in steps that a double holds exactly.
scaled <- function(pair, power) {
    while (any(power > 0)) {
        step <- pmin(power, 22)
        pair <- times(pair, 10^step)
        power <- power - step
    }
    pair
}

# Texts of JSON strings with their quotes.
unquote <- function(tokens) {
    texts <- substr(tokens, 2L, nchar(tokens, "bytes") - 1L)
    escaped <- grepl("\\", texts, fixed = TRUE, useBytes = TRUE)
    if (any(escaped)) texts[escaped] <- unescape(texts[escaped])
    Encoding(texts) <- "UTF-8"
    texts
}

unescape <- function(texts) {
    put <- function(from, to) texts <<- gsub(from, to, texts, fixed = TRUE, useBytes = TRUE)
    # No UTF-8 text holds the byte ff: it stands for escaped backslashes until all other escapes are gone.
    put("\\\\", rawToChar(as.raw(255L)))
    put("\\\"", "\""); put("\\/", "/"); put("\\n", "\n"); put("\\r", "\r"); put("\\t", "\t")
    put("\\b", "\b"); put("\\f", "\f")
    pattern <- "\\\\u[dD][89abAB]..\\\\u[dD][c-fC-F]..|\\\\u...."
    codes <- unlist(regmatches(texts, gregexpr(pattern, texts, perl = TRUE, useBytes = TRUE)))
    codes <- unique(codes)
    for (code in codes[order(-nchar(codes))]) put(code, decode(code))
    put(rawToChar(as.raw(255L)), "\\")
    texts
}

# The character of \uXXXX or of a pair of them, as bytes. R has no text with a NUL in it.
decode <- function(code) {
    units <- strtoi(c(substr(code, 3L, 6L), if (nchar(code) > 6L) substr(code, 9L, 12L)), 16L)
    point <- if (length(units) == 2L) 65536 + (units[1L] - 55296) * 1024 + units[2L] - 56320 else units
    if (point == 0) point <- 65533
    text <- intToUtf8(point)
    if (is.na(text)) text <- replacement
    Encoding(text) <- "bytes"
    text
}

# Values as JSON ---------------------------------------------------------------------------------

unwritable <- function(path, problem) {
    stop(structure(class = c("casemate_unwritable", "error", "condition"),
                   list(message = paste0(path, ": ", problem), call = NULL)))
}

# The text of a value. `path` names it in messages; vectors of one are scalars, unless `keep`.
json <- function(x, path, depth = 0L, keep = FALSE) {
    if (depth > depth_max) unwritable(path, paste("nested more than", depth_max, "deep"))
    if (is.null(x)) return("null")
    if (!is.null(attributes(x))) {
        if (inherits(x, "AsIs")) {
            class(x) <- setdiff(class(x), "AsIs")
            keep <- TRUE
        }
        if (is.data.frame(x)) return(json_object(as.list(x), path, depth, keep = TRUE))
        if (is.object(x)) x <- plain(x, path)
        if (length(dim(x)) > 1L) return(json_array_of(rows(x), path, depth))
        if (length(names(x)) || (is.list(x) && !is.null(names(x)))) return(json_object(as.list(x), path, depth))
    }
    if (is.list(x)) return(json_array_of(x, path, depth))
    if (is.pairlist(x)) return(json_object(as.list(x), path, depth))
    if (!is.atomic(x)) unwritable(path, paste0("a value of type ", typeof(x), " cannot be written as JSON"))
    texts <- scalars(x, path)
    if (is.raw(x) || (length(x) == 1L && !keep)) texts else paste0("[", paste(texts, collapse = ","), "]")
}

# What a value with a class stands for.
plain <- function(x, path) {
    if (is.factor(x)) {
        named <- as.character(x)
        names(named) <- names(x)
        return(named)
    }
    if (inherits(x, "Date")) return(format(x, "%Y-%m-%d"))
    if (inherits(x, "POSIXt")) return(moments(as.POSIXct(x)))
    if (inherits(x, "difftime")) return(as.numeric(x, units = "secs"))
    if (inherits(x, c("numeric_version", "roman", "hexmode", "octmode"))) return(as.character(x))
    if (inherits(x, "integer64")) return(structure(as.character(x), class = "integer64"))
    if (isS4(x)) unwritable(path, paste0("a value of class ", class(x)[1L], " cannot be written as JSON"))
    if (is.table(x) && length(dim(x)) == 1L) {
        labels <- names(x)
        x <- as.vector(x)
        names(x) <- labels
        return(x)
    }
    unclass(x)
}

# ISO 8601 in UTC, with fractions of a second only where there are any.
moments <- function(x) {
    seconds <- unclass(x)
    fraction <- sub("\\.?0+$", "", sprintf("%.6f", seconds - floor(seconds)))
    texts <- paste0(format(as.POSIXct(floor(seconds), origin = "1970-01-01"), "%Y-%m-%dT%H:%M:%S", tz = "UTC"),
                    substring(fraction, 2L), "Z")
    texts[is.na(seconds)] <- NA
    texts
}

# The slices of an array along its first dimension.
rows <- function(x) {
    lapply(seq_len(dim(x)[1L]), function(i) {
        slice <- x[slice.index(x, 1L) == i]
        rest <- dim(x)[-1L]
        if (length(rest) > 1L) dim(slice) <- rest
        I(slice)
    })
}

json_array_of <- function(x, path, depth) {
    texts <- vapply(seq_along(x), function(i) json(x[[i]], paste0(path, "[", i - 1L, "]"), depth + 1L), "")
    paste0("[", paste(texts, collapse = ","), "]")
}

json_object <- function(x, path, depth, keep = FALSE) {
    if (!length(x)) return("{}")
    keys <- names(x)
    # Records in a row have the same names.
    if (!identical(keys, last$keys)) {
        unnamed <- is.na(keys) | keys == ""
        unique <- keys
        unique[unnamed] <- as.character(seq_along(x))[unnamed]
        twice <- anyDuplicated(unique)
        if (twice) unwritable(path, paste0("two entries are named ", quoted(unique[twice])))
        last$keys <- keys
        last$texts <- paste0(quoted(unique), ":")
    }
    starts <- last$texts
    texts <- vapply(seq_along(x), function(i) json(x[[i]], paste0(path, step(keys[i])), depth + 1L, keep), "")
    paste0("{", paste0(starts, texts, collapse = ","), "}")
}

step <- function(key) {
    if (is.na(key) || make.names(key) != key) paste0("[", quoted(substr(key, 1L, 80L)), "]") else paste0(".", key)
}

# The elements of a vector, each as JSON.
scalars <- function(x, path) {
    if (inherits(x, "integer64")) x <- unclass(x)
    else x <- switch(typeof(x),
        logical = c("false", "true")[x + 1L],
        integer = as.character(x),
        double = return(number_texts(x)),
        character = ,
        raw = return(quoted(if (is.raw(x)) base64(x) else x)),
        unwritable(path, paste0("a value of type ", typeof(x), " cannot be written as JSON")))
    x[is.na(x)] <- "null"
    x
}

# 15 digits where they name the number, else 17, which always do; NaN, infinities and NA are null.
number_texts <- function(x) {
    finite <- is.finite(x)
    if (!all(finite)) {
        texts <- rep("null", length(x))
        texts[finite] <- number_texts(x[finite])
        return(texts)
    }
    texts <- sprintf("%.15g", x)
    inexact <- !is_named_by_15(x)
    if (any(inexact)) texts[inexact] <- sprintf("%.17g", x[inexact])
    texts
}

# Whether the text of 15 digits lies within half a unit of the number's last place. R's own reading of the text does
# not tell: it is not always right in that place. Digits 16 to 21 are how far the text is away.
is_named_by_15 <- function(x) {
    size <- abs(x)
    sure <- size < 1e15 & size == floor(size)
    if (all(sure)) return(sure)
    shown <- sprintf("%.20e", size)
    rest <- as.numeric(substr(shown, 17L, 22L))
    away <- abs(rest - 1e6 * (rest > 5e5))
    two <- floor(log2(size))
    two <- two - (2^two > size)
    half <- 10^((two - 53) * 0.30102999566398119521 + 20 - as.numeric(substring(shown, 24L)))
    sure | away < half * (0.999 - 0.5 * (size == 2^two))
}

quoted <- function(x) {
    if (!length(x)) return(character())
    bad <- !validUTF8(x) & Encoding(x) != "latin1"
    if (any(bad)) x[bad] <- iconv(x[bad], "UTF-8", "UTF-8", sub = replacement)
    x <- enc2utf8(x)
    special <- grepl("[\"\\\\[:cntrl:]]", x)
    if (any(special)) x[special] <- escaped(x[special])
    texts <- paste0("\"", x, "\"")
    if (anyNA(x)) texts[is.na(x)] <- "null"
    texts
}

escaped <- function(x) {
    put <- function(from, to) x <<- gsub(from, to, x, fixed = TRUE)
    put("\\", "\\\\"); put("\"", "\\\""); put("\n", "\\n"); put("\r", "\\r"); put("\t", "\\t")
    if (any(grepl("[\001-\037]", x))) {
        for (code in 1:31) put(intToUtf8(code), sprintf("\\u%04x", code))
    }
    x
}

base64 <- function(bytes) {
    if (!length(bytes)) return("")
    missing <- (3L - length(bytes) %% 3L) %% 3L
    triples <- matrix(c(as.integer(bytes), integer(missing)), nrow = 3L)
    bits <- triples[1L, ] * 65536L + triples[2L, ] * 256L + triples[3L, ]
    sixes <- rbind(bits %/% 262144L, bits %/% 4096L %% 64L, bits %/% 64L %% 64L, bits %% 64L)
    letters <- c(LETTERS, base::letters, 0:9, "+", "/")[sixes + 1L]
    if (missing) letters[length(letters) - seq_len(missing) + 1L] <- "="
    paste(letters, collapse = "")
}

# The reply --------------------------------------------------------------------------------------

send <- function(text) {
    body <- charToRaw(text)
    # The program may have closed the connection: there is no reply then, and its exit status stands.
    try({
        writeBin(length(body), reply, endian = "big")
        writeBin(body, reply)
        flush(reply)
    }, silent = TRUE)
}

error_reply <- function(kind, type, message, traceback) {
    texts <- quoted(vapply(c(type, message, traceback), clipped, "", USE.NAMES = FALSE))
    paste0("{\"kind\":\"", kind, "\",\"error\":{\"type\":", texts[1L], ",\"message\":", texts[2L],
           ",\"traceback\":", texts[3L], "}}")
}

clipped <- function(text) {
    text <- enc2utf8(paste(text, collapse = "\n"))
    if (!validUTF8(text)) text <- iconv(text, "UTF-8", "UTF-8", sub = replacement)
    substr(text, 1L, text_max_chars)
}

value_reply <- function(x) {
    tryCatch({
        text <- paste0("{\"kind\":\"value\",\"output\":", json(x, "output"), "}")
        bytes <- nchar(text, "bytes")
        if (bytes > value_max_bytes) {
            unwritable("output", paste(bytes, "bytes of JSON, more than the", value_max_bytes, "allowed"))
        }
        text
    }, error = function(e) error_reply("invalid", "InvalidOutput", conditionMessage(e), ""))
}

# Runs ours without the compiler that R starts at the second call of a function: loading it takes longer than all of
# our work on a value of ordinary size.
uncompiled <- function(work) {
    level <- .Internal(enableJIT(0L))
    on.exit(.Internal(enableJIT(level)))
    work
}

compose <- function() {
    if (!is.null(state$failure)) return(do.call(error_reply, c("exception", state$failure)))
    value <- outcome()
    if (is.null(value)) return("{\"kind\":\"none\"}")
    if (utils::object.size(value) > large_bytes) .Internal(enableJIT(3L))
    value_reply(value[[1L]])
}

# The output in a list, or NULL if there is none.
outcome <- function() {
    if (!is.null(state$returned)) return(state$returned)
    for (name in c(if (is.null(state$named)) "output", ".casemate.main")) {
        if (exists(name, globalenv(), inherits = FALSE)) return(list(get(name, globalenv(), inherits = FALSE)))
    }
    NULL
}

# Called at every error that nothing in the program catches.
note_failure <- function(e) {
    calls <- sys.calls()
    calls <- calls[seq_len(max(0L, sys.nframe() - 1L))]
    while (length(calls) && startsWith(one_line(calls[[length(calls)]]), ".handleSimpleError(")) {
        calls <- calls[-length(calls)]
    }
    message <- tryCatch(conditionMessage(e), error = function(e) "")
    call <- conditionCall(e)
    head <- if (is.null(call)) "Error: " else paste0("Error in ", one_line(call), " : ")
    frames <- vapply(rev(seq_along(calls)), function(i) paste0(i, ": ", one_line(calls[[i]])), "")
    state$failure <- list(class(e)[1L], message, paste(c(paste0(head, message), frames[seq_len(min(50L, length(frames)))]),
                                                       collapse = "\n"))
    NULL
}

one_line <- function(call) substr(deparse(call, nlines = 1L)[1L], 1L, 200L)

# The program ------------------------------------------------------------------------------------

read_request <- function() {
    connection <- file("/dev/fd/3", "rb", raw = TRUE)
    on.exit(close(connection))
    size <- readBin(connection, "integer", 1L, endian = "big")
    text <- rawToChar(readBin(connection, "raw", size))
    Encoding(text) <- "UTF-8"
    parse_json(text)
}

# Child processes inherit what R has open by number; of connections made by ourselves they do not.
close_descriptors <- function() {
    library <- dyn.load(file.path(R.home("library"), "parallel", "libs", "parallel.so"))
    .Call(getNativeSymbolInfo("mc_close_fds", library), 3:4)
    dyn.unload(library[["path"]])
}

# The names that R knows its command line and its caller's environment by, as `Rscript FILE` would have them.
pretend <- function(filename, arguments) {
    Sys.unsetenv("R_PROFILE")
    for (name in c("R_PROFILE_USER", "R_ENVIRON", "R_ENVIRON_USER")) if (!nzchar(Sys.getenv(name))) Sys.unsetenv(name)
    words <- c(commandArgs()[1L], "--no-echo", "--no-restore", paste0("--file=", filename),
               if (length(arguments)) c("--args", arguments))
    body <- function(trailingOnly = FALSE) {
        args <- words
        if (trailingOnly) {
            m <- match("--args", args, 0L)
            if (m) args[-seq_len(m)] else character()
        } else args
    }
    base <- baseenv()
    unlockBinding("commandArgs", base)
    assign("commandArgs", body, base)
    lockBinding("commandArgs", base)
}

# Whether `return` is called outside of functions, and of what evaluates code in its own right.
returns <- function(e) {
    if (!is.call(e)) return(FALSE)
    head <- if (is.name(e[[1L]])) as.character(e[[1L]]) else ""
    if (head == "return") return(TRUE)
    if (head %in% c("function", "local", "eval", "evalq", "quote", "bquote", "substitute", "expression", "~",
                    "with", "within")) return(FALSE)
    for (part in as.list(e)) if (!missing(part) && returns(part)) return(TRUE)
    FALSE
}

# The same expression with `leave(x)` for such a `return(x)`.
rewritten <- function(e) {
    if (!returns(e)) return(e)
    if (is.name(e[[1L]]) && as.character(e[[1L]]) == "return") {
        e[[1L]] <- leave
        return(e)
    }
    for (i in seq_along(e)) {
        part <- e[[i]]
        if (!missing(part) && returns(part)) e[[i]] <- rewritten(part)
    }
    e
}

leave <- function(value = NULL) invokeRestart("casemate_return", value)

# A statement that may return from the top level: then the program is over.
statement <- function(k) {
    result <- withRestarts(withVisible(eval(state$statements[[k]], globalenv())),
                           casemate_return = function(value) {
                               state$returned <- list(value)
                               NULL
                           })
    if (is.null(result)) quit("no")
    if (result$visible) result$value else invisible(result$value)
}

wants_main <- function() uncompiled({
    main <- get0("main", globalenv(), mode = "function", inherits = FALSE)
    if (is.null(main) || !is.null(outcome())) return(FALSE)
    arguments <- formals(args(main))
    required <- vapply(arguments, function(each) is.name(each) && !nzchar(as.character(each)), NA)
    sum(required & names(arguments) != "...") == 1L
})

# A last line that calls the function of that name; "*" is the first that the source gives a name.
calling <- function(parsed, request) {
    name <- request[["function"]]
    if (name == "*") name <- first_function(parsed)
    state$named <- name
    wanted <- ".AutoloadEnv$.casemate$wanted()"
    if (!nzchar(name)) return(wanted)
    word <- deparse(as.name(name), backtick = TRUE)
    call <- if (!request$has_input) paste0(word, "()")
            else if (isTRUE(request$spread)) paste0("do.call(", quoted(name), ", as.list(input), quote = TRUE)")
            else paste0(word, "(input)")
    paste0(wanted, "; .casemate.main <- ", call)
}

first_function <- function(parsed) {
    for (e in as.list(parsed)) {
        if (!is.call(e) || length(e) < 3L || !is.name(e[[1L]])) next
        if (!as.character(e[[1L]]) %in% c("<-", "=", "<<-") || !(is.name(e[[2L]]) || is.character(e[[2L]]))) next
        if (is.call(e[[3L]]) && identical(e[[3L]][[1L]], as.name("function"))) return(as.character(e[[2L]]))
    }
    ""
}

wanted <- function() {
    found <- nzchar(state$named) && exists(state$named, globalenv(), mode = "function", inherits = FALSE)
    if (!found) stop(structure(class = c("FunctionNotFound", "error", "condition"),
                               list(message = "Function name not found", call = NULL)))
    invisible()
}

# Only whether the text can be parsed, and else where it cannot.
syntax_of <- function(code) {
    problem <- tryCatch({ parse(text = code, keep.source = FALSE); NULL }, error = conditionMessage)
    if (is.null(problem)) return(list(valid = TRUE, message = "", line = NULL, column = NULL))
    found <- regmatches(problem, regexec("^<text>:([0-9]+):([0-9]+): (.*)", problem))[[1L]]
    if (!length(found)) return(list(valid = FALSE, message = problem, line = NULL, column = NULL))
    column <- as.integer(found[3L])
    list(valid = FALSE, message = sub("\n.*", "", found[4L]), line = as.integer(found[2L]),
         column = if (column > 0L) column)
}

# The text for R to read: the program's own, except where a `return` stands and for a last line that calls `main`.
prepare <- function(code, request) {
    has_input <- request$has_input
    calls <- !is.null(request[["function"]])
    if (!calls && !has_input && !grepl("return", code, fixed = TRUE)) return(code)
    parsed <- tryCatch(parse(text = code, keep.source = TRUE), error = function(e) NULL)
    # R shall complain about the text that its author knows.
    if (is.null(parsed)) return(code)
    last_line <- if (calls) calling(parsed, request)
    places <- attr(parse(text = single_bytes(code), keep.source = TRUE), "srcref")
    lines <- strsplit(paste0(code, "\n"), "\n", fixed = TRUE)[[1L]]
    for (k in rev(which(vapply(as.list(parsed), returns, NA)))) {
        state$statements[[as.character(k)]] <- rewritten(parsed[[k]])
        lines <- replaced(lines, as.integer(places[[k]]), paste0(".AutoloadEnv$.casemate$statement(\"", k, "\")"))
    }
    if (calls && !nzchar(state$named)) return(last_line)
    if (calls) return(paste(c(lines, last_line), collapse = "\n"))
    paste(c(lines, if (has_input) "if (.AutoloadEnv$.casemate$wants_main()) .casemate.main <- main(input)"), collapse = "\n")
}

# The text with a letter for every byte that is not ASCII: R miscounts the bytes before a place in other texts.
single_bytes <- function(text) {
    bytes <- charToRaw(text)
    bytes[bytes > as.raw(127L)] <- charToRaw("a")
    rawToChar(bytes)
}

# Lines with a stretch of text (first line and byte, last line and byte) replaced.
replaced <- function(lines, place, text) {
    bytes <- function(line, from, to) {
        line <- charToRaw(line)
        rawToChar(line[seq_len(length(line)) >= from & seq_len(length(line)) <= to])
    }
    first <- bytes(lines[place[1L]], 1L, place[2L] - 1L)
    last <- bytes(lines[place[3L]], place[4L] + 1L, Inf)
    stretch <- place[1L]:place[3L]
    lines[stretch] <- ""
    lines[place[1L]] <- paste0(first, text)
    lines[place[3L]] <- paste0(if (place[1L] == place[3L]) lines[place[1L]], last)
    lines
}

# Make the program the file that it natively is, until its end. What lies there already stays as it is.
place <- function(filename, code) {
    if (file.exists(filename)) return()
    made <- suppressWarnings(try({
        connection <- file(filename, "wb")
        on.exit(close(connection))
        writeBin(charToRaw(code), connection)
    }, silent = TRUE))
    if (inherits(made, "try-error")) return()
    flush(connection)
    state$placed <- file.path(getwd(), filename)
    state$facts <- file_facts(state$placed)
}

file_facts <- function(path) file.info(path, extra_cols = FALSE)[c("size", "mtime")]

unplace <- function() {
    if (!is.null(state$placed) && identical(file_facts(state$placed), state$facts)) file.remove(state$placed)
}

# R has opened the file for -e, written the placeholder into it, and deleted it.
hand_over <- function(code) {
    for (link in file.path("/proc/self/fd", list.files("/proc/self/fd"))) {
        target <- Sys.readlink(link)
        if (grepl("(/Rscript[^/]*|/#[0-9]*) \\(deleted\\)$", target)) {
            connection <- file(link, "wb")
            writeBin(charToRaw(enc2utf8(code)), connection)
            close(connection)
            return(invisible())
        }
    }
    stop("casemate: R has no file for the program open")
}

last <- new.env()
state <- new.env()
ended <- function(e) {
    if (Sys.getpid() != process) return()
    send(uncompiled(compose()))
    unplace()
}
uncompiled({
    # `e` in the mode: kept from child processes.
    reply <- file("/dev/fd/4", "web", raw = TRUE)
    # R does so itself, but only after this profile: a process that waits for its program should have done it before.
    for (package in getOption("defaultPackages"))
        suppressWarnings(require(package, quietly = TRUE, warn.conflicts = FALSE, character.only = TRUE))
    writeBin(raw(4L), reply) # an empty frame: from now on the request may come
    flush(reply)
    request <- read_request()
    close_descriptors()
    if (isTRUE(request$check)) {
        send(value_reply(syntax_of(request$code)))
        quit("no")
    }
    if (length(request$env)) do.call(Sys.setenv, as.list(request$env))
    pretend(request$filename, as.character(unlist(request$args)))
    state$statement <- statement
    state$wants_main <- wants_main
    state$wanted <- wanted
    assign(".casemate", state, .AutoloadEnv)
    if (request$has_input) {
        assign("input", request$input, globalenv())
        # For programs that begin with rm(list = ls()).
        assign("input", request$input, .AutoloadEnv)
    }
    place(request$filename, request$code)
    reg.finalizer(state, ended, onexit = TRUE)
    hand_over(prepare(request$code, request))
})
globalCallingHandlers(error = note_failure)

}, envir = base::new.env())
