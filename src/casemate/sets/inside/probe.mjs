// Imports what is to be preloaded. The first argument is the status for the first name, the others are the names; for one
// that cannot be imported the status says which, and stderr why.
const [first, ...names] = process.argv.slice(2);
for (const [number, name] of names.entries()) {
  try {
    await import(name);
  } catch (error) {
    console.error(error?.code === 'ERR_MODULE_NOT_FOUND' ? error.message : error);
    process.exit(Number(first) + number);
  }
}
