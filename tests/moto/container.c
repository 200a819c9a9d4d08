/* What the containers of the tests run: it does as it is told by its arguments, one after another. */
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

int main(int count, char **told) {
    /* At once: the first process of a container is not told of what it does not ask for. */
    signal(SIGTERM, leave);
    for (int at = 1; at < count; at++) {
        const char *what = told[at], *value = strchr(what, '=');
        value = value ? value + 1 : "";
        if (!strncmp(what, "print=", 6)) {
            const char *found = getenv(value);
            printf("%s=%s\n", value, found ? found : "(none)");
            fflush(stdout);
        } else if (!strncmp(what, "exit=", 5)) {
            return atoi(value);
        } else if (!strncmp(what, "fail-before-attempt=", 20)) {
            if (atoi(getenv("AWS_BATCH_JOB_ATTEMPT")) < atoi(value)) return 3;
        } else if (!strncmp(what, "fail-index=", 11)) {
            if (!strcmp(getenv("AWS_BATCH_JOB_ARRAY_INDEX"), value)) return 4;
        } else if (!strncmp(what, "sleep=", 6)) {
            sleep((unsigned)atoi(value));
        } else if (!strcmp(what, "fill-memory")) {
            /* Who is killed while he starts may not be told apart from others that are. */
            sleep(1);
            for (;;) memset(malloc(1 << 20), 1, 1 << 20);
        }
    }
    return 0;
}
