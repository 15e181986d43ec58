# Loads what is to be preloaded, by the names that are the arguments.
for (name in commandArgs(trailingOnly = TRUE)) loadNamespace(name)
