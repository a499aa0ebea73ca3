/*
 * A host that is linked with nothing: it loads the library, uses it, and unloads it,
 * several times.
 *
 *   plugin LIBRARY
 */
#include "embed.h"

#include <dlfcn.h>

struct functions {
    int (*open)(tide_mill **, const struct tide_mill_options *,
                struct tide_error *);
    int (*load)(tide_mill *, const char *, const char *, size_t,
                struct tide_error *);
    int (*call)(tide_call **, tide_mill *, const char *, const tide_args *,
                const struct tide_call_options *, struct tide_error *);
    int (*wait)(tide_call *, double, struct tide_error *);
    int (*get_number)(double *, tide_call *, const char *);
    void (*free)(tide_mill *);
    const char *(*status_text)(int);
};

static void find(void *out, void *library, const char *name)
{
    void *found = dlsym(library, name);
    CHECK(found != NULL);
    memcpy(out, &found, sizeof found);
}

static int is_mapped(const char *name)
{
    char line[4096];
    int mapped = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        mapped |= strstr(line, name) != NULL;
    fclose(maps);
    return mapped;
}

static void use(const struct functions *tide)
{
    /* LPeg is a C module, and what lambdas are read with. */
    static const char script[] =
        "local lpeg = require 'lpeg'\n"
        "function digits(text)\n"
        "  return (lpeg.C(lpeg.R '09' ^ 1) / tonumber):match(text) end\n"
        "function both() return digits '41' + 1 end\n";
    struct tide_error err = { 0 };
    tide_mill *mill = NULL;
    tide_call *call = NULL;
    double number = 0;
    if (tide->open(&mill, NULL, &err) != TIDE_OK ||
        tide->load(mill, "script", script, sizeof script - 1, &err) !=
            TIDE_OK ||
        tide->call(&call, mill, "() -> both()", NULL, NULL, &err) != TIDE_OK ||
        tide->wait(call, PATIENCE_S, &err) != TIDE_OK) {
        fprintf(stderr, "%s: %s\n", tide->status_text(err.status), err.text);
        CHECK(0);
    }
    CHECK(tide->get_number(&number, call, "1") == TIDE_OK && number == 42);
    tide->free(mill);
}

int main(int argc, char **argv)
{
    struct functions tide;
    CHECK(argc == 2);
    watch_time();
    int fds = count_fds();
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return EXIT_FAILURE;
        }
        find(&tide.open, library, "tide_mill_open");
        find(&tide.load, library, "tide_mill_load");
        find(&tide.call, library, "tide_mill_call");
        find(&tide.wait, library, "tide_call_wait");
        find(&tide.get_number, library, "tide_get_number");
        find(&tide.free, library, "tide_mill_free");
        find(&tide.status_text, library, "tide_status_text");
        use(&tide);
        CHECK(dlclose(library) == 0);
        CHECK(!is_mapped("libtidemill") && !is_mapped("libluajit"));
        check_nothing_left(fds);
    }
    return EXIT_SUCCESS;
}
