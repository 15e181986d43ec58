/* Reads one byte too many and decides by it: instruments that stay silent here would prove nothing. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    char *bytes = calloc((size_t)argc + 3, 1);
    (void)argv;
    return bytes != NULL && bytes[argc + 3] == 'x' ? puts("x") : 0;
}
