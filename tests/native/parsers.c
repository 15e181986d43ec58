/* Feeds records from standard input to the launcher's two parsers and answers with one digit each.
 * A record is a u32 kind (0: plan, 1: request), a u32 number of descriptors, a u32 length, and the
 * bytes, which are copied into a block of exactly that size, so that the address sanitizer sees the
 * first byte that is read beyond. */
#include "casemate.h"

#include <stdio.h>
#include <stdlib.h>

int main(void) {
    uint32_t head[3];
    while (fread(head, sizeof head, 1, stdin) == 1) {
        uint8_t *bytes = malloc(head[2]);
        if (head[2] > 0 && (bytes == NULL || fread(bytes, head[2], 1, stdin) != 1))
            return 2;
        bool valid = head[0] == 0 ? plan_is_valid(bytes, head[2], (int)head[1]) : request_is_valid(bytes, head[2]);
        putchar(valid ? '1' : '0');
        free(bytes);
    }
    return ferror(stdin) || fflush(stdout) != 0;
}
