/*
 * A rule engine: scores the records of a CSV file by rules that users write in Lua,
 * on all processors.
 *
 *   rules RULES.lua RECORDS.csv
 *
 * The program gives the rules a C function of its own, text.distance(). A rule that
 * goes wrong costs its record, not the program: also one that crashes.
 */
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tidemill.h>

enum { FIELDS_MAX = 16, LINE_MAX_BYTES = 1024 };

/* ---- what the rules can call ---- */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* text.distance(a, b): how many letters to change, add or remove. */
static int distance(lua_State *L)
{
    size_t row[LINE_MAX_BYTES], width, height;
    const char *a = luaL_checklstring(L, 1, &height);
    const char *b = luaL_checklstring(L, 2, &width);
    luaL_argcheck(L, width < LINE_MAX_BYTES, 2, "too long");
    for (size_t x = 0; x <= width; x++)
        row[x] = x;
    for (size_t y = 1; y <= height; y++) {
        size_t diagonal = row[0];
        row[0] = y;
        for (size_t x = 1; x <= width; x++) {
            size_t changed = diagonal + (a[y - 1] != b[x - 1]);
            diagonal = row[x];
            row[x] = least(changed, least(row[x], row[x - 1]) + 1);
        }
    }
    lua_pushnumber(L, (double)row[width]);
    return 1;
}

/* Runs in every worker before it begins. */
static void give_functions(lua_State *L, void *unused)
{
    static const luaL_Reg functions[] = { { "distance", distance },
                                          { NULL, NULL } };
    (void)unused;
    luaL_register(L, "text", functions);
}

/* ---- records ---- */

static int split(char **fields, char *line)
{
    int count = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *at = line; at != NULL && count < FIELDS_MAX; count++) {
        fields[count] = at;
        at = strchr(at, ',');
        if (at != NULL)
            *at++ = '\0';
    }
    return count;
}

/* A field as a number, if it is one from end to end. */
static void add_field(tide_args *records, const char *name, const char *text)
{
    char *end;
    double number = strtod(text, &end);
    tide_args_name(records, name);
    if (end != text && *end == '\0')
        tide_args_number(records, number);
    else
        tide_args_text(records, text);
}

/* Each line a table of fields by the names in the first. */
static int read_records(tide_args *records, FILE *file)
{
    char header[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    char *names[FIELDS_MAX], *fields[FIELDS_MAX];
    int count = 0;
    if (fgets(header, sizeof header, file) == NULL)
        return 0;
    int width = split(names, header);
    for (; fgets(line, sizeof line, file) != NULL; count++) {
        tide_args_begin(records);
        int given = split(fields, line);
        for (int i = 0; i < width && i < given; i++)
            add_field(records, names[i], fields[i]);
        tide_args_end(records);
    }
    return count;
}

/* ---- scores ---- */

static void print_score(tide_call *call, int record)
{
    char path[32];
    const char *text = "";
    double score = 0;
    int64_t signal = 0;
    snprintf(path, sizeof path, "%d", record);
    tide_call_enter(call, path);
    if (tide_get_number(&score, call, "score") == TIDE_OK) {
        tide_get_string(&text, NULL, call, "because");
        printf("%3d  %5.1f  %s\n", record, score, text);
    } else if (tide_get_integer(&signal, call, "signal") == TIDE_OK) {
        printf("%3d      -  a rule crashed: signal %d\n", record, (int)signal);
    } else {
        tide_get_string(&text, NULL, call, "message");
        printf("%3d      -  %s\n", record, text);
    }
    tide_call_leave(call);
}

int main(int argc, char **argv)
{
    const struct tide_start_options start = { .size = sizeof start,
                                              .hook = give_functions };
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = &start,
                                               .timeout_s = 5 };
    const struct tide_call_options each = { .size = sizeof each, .collect = 1 };
    struct tide_error err;
    tide_mill *mill;
    tide_call *call = NULL;
    if (argc != 3) {
        fprintf(stderr, "usage: rules RULES.lua RECORDS.csv\n");
        return 2;
    }
    tide_mill_open(&mill, &options, &err); /* early: the process is small */
    FILE *file = fopen(argv[2], "r");
    if (file == NULL) {
        perror(argv[2]);
        return EXIT_FAILURE;
    }
    tide_args *records = tide_args_new();
    int count = read_records(records, file);
    fclose(file);

    if (tide_mill_load_file(mill, argv[1], &err) == TIDE_OK)
        tide_mill_map(&call, mill, "score", records, &each, &err);
    int status = tide_call_wait(call, TIDE_WAIT_FOREVER, &err);
    if (status != TIDE_OK)
        fprintf(stderr, "rules: %s\n", err.text);
    for (int i = 1; status == TIDE_OK && i <= count; i++)
        print_score(call, i);
    tide_args_free(records);
    tide_mill_free(mill);
    return status == TIDE_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
