/* Program of the test containers: executes its arguments as instructions, one after another. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void leave(int signal) {
    (void)signal;
    write(1, "asked to end\n", 13);
    _exit(75);
}

int main(int count, char **instructions) {
    /* Before anything else: the first process of a container only receives signals that it handles. */
    signal(SIGTERM, leave);
    for (int at = 1; at < count; at++) {
        const char *instruction = instructions[at], *value = strchr(instruction, '=');
        value = value ? value + 1 : "";
        if (!strncmp(instruction, "print=", 6)) {
            const char *found = getenv(value);
            printf("%s=%s\n", value, found ? found : "(none)");
            fflush(stdout);
        } else if (!strncmp(instruction, "exit=", 5)) {
            return atoi(value);
        } else if (!strncmp(instruction, "fail-before-attempt=", 20)) {
            if (atoi(getenv("AWS_BATCH_JOB_ATTEMPT")) < atoi(value)) return 3;
        } else if (!strncmp(instruction, "fail-index=", 11)) {
            if (!strcmp(getenv("AWS_BATCH_JOB_ARRAY_INDEX"), value)) return 4;
        } else if (!strncmp(instruction, "sleep=", 6)) {
            sleep((unsigned)atoi(value));
        } else if (!strcmp(instruction, "fill-memory")) {
            /* A kill during the start may be mistaken for another failure. */
            sleep(1);
            for (;;) memset(malloc(1 << 20), 1, 1 << 20);
        }
    }
    return 0;
}
