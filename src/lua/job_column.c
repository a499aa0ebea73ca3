/*
 * Columns of results as the host reads them. A NaN with some payload is, in LuaJIT,
 * a value of another type; the compiled loops load numbers as they are, so what
 * comes from a worker is copied to private memory, and a NaN made the usual one.
 */
#include "lua/job_parts.h"
#include "lua/reader.h"

#include <math.h>

void tide_column_copy(double *out, const unsigned char *column, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        double number = tide_load_double(column + (size_t)i * sizeof(double));
        out[i] = isnan(number) ? (double)NAN : number;
    }
}

void tide_column_push(lua_State *L, const unsigned char *column, int boolean,
                      uint32_t at)
{
    double number;
    if (boolean) {
        lua_pushboolean(L, column[at]);
        return;
    }
    tide_column_copy(&number, column + (size_t)at * sizeof number, 1);
    lua_pushnumber(L, number);
}
