# A runner: parses a source once, and runs it for one item after the other, each in a fork of this process:
# `R --no-echo --no-restore --no-environ --no-site-file --no-init-file -f <this file> --args LIBRARY`.
#
# The library forks; its child comes back here with the item's request and gives an answer. Nothing of the program has
# run in the process that forks. What values become is in the harness of single programs, of which this takes the
# functions and not what it does with them.

base::local({

.Internal(enableJIT(0L)) # compiling ours takes longer than all of its work, and would be done for each item anew
words <- commandArgs()
here <- dirname(words[match("-f", words) + 1L])
library <- dyn.load(words[match("--args", words) + 1L])
frame_ready <- 6L

harness <- new.env()
for (part in as.list(parse(file.path(here, "r.R"), encoding = "UTF-8")[[1L]][[2L]])) {
    if (is.call(part) && identical(part[[1L]], as.name("<-"))) eval(part, harness)
}

native <- function(name, ...) .C(getNativeSymbolInfo(name, library), ...)

big_endian <- function(number) writeBin(as.integer(number), raw(), endian = "big")

read_source <- function() {
    connection <- file("/dev/fd/3", "rb", raw = TRUE)
    on.exit(close(connection))
    size <- readBin(connection, "integer", 1L, endian = "big")
    text_of(readBin(connection, "raw", size))
}

text_of <- function(bytes) {
    text <- rawToChar(bytes)
    Encoding(text) <- "UTF-8"
    text
}

refuse <- function(problem) {
    body <- charToRaw(harness$error_reply("exception", "SyntaxError", conditionMessage(problem), ""))
    connection <- file("/dev/fd/4", "wb", raw = TRUE)
    writeBin(c(big_endian(length(body) + 1L), as.raw(frame_ready), body), connection)
    close(connection)
    native("casemate_runner_exit", 0L)
}

# Statements, with `leave(x)` for a `return(x)` outside of functions.
compiled <- function(code) lapply(parse(text = code, keep.source = FALSE), harness$rewritten)

# One item ---------------------------------------------------------------------------------------

item <- new.env()

bind <- function(name, value) {
    assign(name, value, globalenv())
    assign(name, value, .AutoloadEnv) # for programs that begin with rm(list = ls())
}

prepare <- function(request) {
    suppressWarnings(rm(".Random.seed", envir = globalenv()))
    tempdir(check = TRUE)
    bind("input", request$input)
    bind("ctx", request$ctx)
    lockBinding("ctx", globalenv())
    lockBinding("ctx", .AutoloadEnv)
    if (source$macros) {
        bind("json", request$input)
        assign("output", new.env(parent = emptyenv()), globalenv())
    }
}

shown <- function(result) {
    if (result$visible) if (isS4(result$value)) methods::show(result$value) else print(result$value)
}

# The program, and the function in it that is asked for. What is returned outside of functions ends it.
program <- function(request) {
    for (each in statements) shown(withVisible(eval(each, globalenv())))
    if (nzchar(source$`function`)) {
        harness$state$named <- if (source$`function` == "*") harness$first_function(statements) else source$`function`
        harness$wanted()
        called <- get(harness$state$named, globalenv(), mode = "function")
        value <- if (!source$spread) called(request$input) else do.call(called, unname(as.list(request$input)), quote = TRUE)
        harness$state$returned <- list(value)
    } else if (wants_main()) {
        harness$state$returned <- list(get("main", globalenv())(request$input))
    }
}

wants_main <- function() {
    output <- get0("output", globalenv(), inherits = FALSE)
    if (source$macros && is.environment(output) && !length(output)) {
        rm("output", envir = globalenv())
        on.exit(assign("output", output, globalenv()))
    }
    harness$wants_main()
}

# The calls between those of the harness and the program's own.
ours <- c("shown(withVisible(eval(each, globalenv())))", "withVisible(eval(each, globalenv()))", "eval(each, globalenv())")

note_failure <- function(e) {
    calls <- sys.calls()
    .Internal(enableJIT(0L))
    texts <- vapply(calls[seq_len(max(0L, sys.nframe() - 1L))], harness$one_line, "")
    texts <- texts[-seq_len(match("program(request)", texts, 0L))]
    while (length(texts) && texts[1L] %in% ours) texts <- texts[-1L]
    texts <- texts[!startsWith(texts, ".handleSimpleError(") & !startsWith(texts, "h(simpleError(")]
    message <- tryCatch(conditionMessage(e), error = function(e) "")
    call <- conditionCall(e)
    head <- if (is.null(call)) "Error: " else paste0("Error in ", harness$one_line(call), " : ")
    frames <- rev(paste0(seq_along(texts), ": ", texts, recycle0 = TRUE))
    text <- paste(c(paste0(head, message), frames[seq_len(min(50L, length(frames)))]), collapse = "\n")
    harness$state$failure <- list(class(e)[1L], message, text)
    invokeRestart("casemate_failed")
}

# Where there was no room left for a closer look.
note_deep_failure <- function(e) {
    message <- tryCatch(conditionMessage(e), error = function(e) "")
    harness$state$failure <- list(class(e)[1L], message, paste0("Error: ", message))
}

attempt <- function(request) {
    .Internal(enableJIT(3L))
    on.exit(.Internal(enableJIT(0L)))
    tryCatch(
        withRestarts(
            withCallingHandlers(program(request), error = note_failure),
            casemate_return = function(value) harness$state$returned <- list(value),
            casemate_failed = function() NULL
        ),
        error = note_deep_failure
    )
}

# An environment is what `output` is from the start, with macros; a list that is returned then is merged over it, and
# to return `output` itself is to return nothing besides.
outcome <- function() {
    returned <- harness$state$returned
    if (!source$macros) return(if (is.null(returned)) harness$outcome() else returned)
    output <- get0("output", globalenv(), inherits = FALSE)
    if (is.environment(output) && identical(returned, list(output))) returned <- NULL
    if (is.environment(output)) output <- as.list(output, all.names = TRUE, sorted = TRUE)
    if (is.list(output) && !length(output)) output <- structure(list(), names = character())
    if (is.null(returned) || is.null(returned[[1L]])) return(list(output))
    value <- returned[[1L]]
    if (!is.list(value) || is.data.frame(value) || is.null(names(value)) || !is.list(output)) return(list(value))
    output[names(value)] <- unclass(value)
    list(output)
}

compose <- function() {
    if (!is.null(harness$state$failure)) return(do.call(harness$error_reply, c("exception", harness$state$failure)))
    value <- outcome()
    if (is.null(value)) return("{\"kind\":\"none\"}")
    harness$value_reply(value[[1L]])
}

# Also when the program ends R itself.
answer <- function(e) {
    if (Sys.getpid() != item$process || item$is_answered) return()
    item$is_answered <- TRUE
    body <- charToRaw(compose())
    native("casemate_runner_answer", c(big_endian(length(body)), body), length(body) + 4L)
}

run_item <- function(size) {
    request <- harness$parse_json(text_of(native("casemate_runner_request", raw(size))[[1L]]))
    item$process <- Sys.getpid()
    item$is_answered <- FALSE
    reg.finalizer(item, answer, onexit = TRUE)
    prepare(request)
    attempt(request)
    has_failed <- !is.null(harness$state$failure)
    if (has_failed) cat(harness$state$failure[[3L]], "\n", sep = "", file = stderr())
    answer()
    flush(stdout())
    native("casemate_runner_exit", as.integer(has_failed))
}

# The runner -------------------------------------------------------------------------------------

options(warn = 1L, keep.source = FALSE)
for (package in getOption("defaultPackages")) {
    suppressWarnings(require(package, quietly = TRUE, warn.conflicts = FALSE, character.only = TRUE))
}
loadNamespace("compiler") # R would load it at the second call of a function, for each item anew
source <- harness$parse_json(read_source())
statements <- tryCatch(compiled(source$code), error = refuse)
if (nzchar(source$library)) {
    helpers <- attach(NULL, name = "macros", warn.conflicts = FALSE)
    eval(parse(text = source$library, keep.source = FALSE), helpers)
}
ready <- charToRaw("{\"kind\":\"none\"}")
gc(verbose = FALSE)
run_item(native("casemate_runner", ready, length(ready), size = 0L)$size)

}, envir = base::new.env())
