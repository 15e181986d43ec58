/* Memory that belongs to the program from its start. */
#include "probe.h"

#define BYTES (1024L * 1024 * 1024)

static char in_program[BYTES];

int main(void) {
    for (long at = 0; at < BYTES; at += 4096)
        in_program[at] = (char)(at >> 12);
    say_number("last", in_program[BYTES - 4096]);
    return 0;
}
