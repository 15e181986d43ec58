# Installs the source packages that are needed for those named, and sees that all of them are there in the end.
words <- commandArgs(trailingOnly = TRUE)
library <- words[[1L]]
wanted <- words[-1L]
sources <- "/work/repository/src/contrib"
missing <- setdiff(wanted, rownames(installed.packages(library)))
if (length(missing) && file.exists(file.path(sources, "PACKAGES"))) {
    install.packages(missing, lib = library, contriburl = paste0("file://", sources), type = "source",
                     quiet = TRUE, INSTALL_opts = c("--no-docs", "--no-test-load"))
}
missing <- setdiff(wanted, rownames(installed.packages(library)))
if (length(missing)) stop("not installed: ", paste(missing, collapse = ", "), call. = FALSE)
