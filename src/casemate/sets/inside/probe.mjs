// Imports what is to be preloaded, by the names that are the arguments.
for (const name of process.argv.slice(2)) await import(name);
