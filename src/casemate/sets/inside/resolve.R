# Of a repository of source packages: an index, and copies of those that are needed for the packages named.
words <- commandArgs(trailingOnly = TRUE)
repository <- words[[1L]]
out <- words[[2L]]
wanted <- words[-(1:2)]
if (!length(list.files(repository, pattern = "[.]tar[.]gz$"))) quit()
tools::write_PACKAGES(repository, type = "source")
file.copy(file.path(repository, "PACKAGES"), out)
known <- available.packages(paste0("file://", repository), type = "source", filters = list())
needed <- unique(c(wanted, unlist(tools::package_dependencies(wanted, known, recursive = TRUE))))
files <- known[rownames(known) %in% needed, , drop = FALSE]
tarballs <- sprintf("%s_%s.tar.gz", files[, "Package"], files[, "Version"])
invisible(file.copy(file.path(repository, tarballs), out))
