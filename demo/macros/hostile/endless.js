// Tries to keep a processor busy for ever.
for (;;);
