-- The product of two large matrices in shared memory: workers get row numbers, read both factors
-- and write their rows of the product in place. Once in plain Lua, in blocks that stay in the
-- cache, and once more by BLAS, if OpenBLAS is installed (Debian: libopenblas0-pthread).
-- usage: tidemill matrix_shared.lua [SIZE]

local tidemill = require "tidemill"

local size = tonumber(arg[1]) or 1024
local BAND, BLOCK = 64, 64 -- rows a task computes; columns and terms at a time

--- A matrix of small whole numbers, so that every sum is exact, in whatever order.
local function sample(seed)
  local m = tidemill.matrix("double", size, size)
  for i = 1, size * size do m[i] = (i * seed + math.floor(i / size)) % 10 end
  return m
end

local a, b = sample(3), sample(7)

--- Rows `first` to `last` of the product, into `c`. Pointers count from 0.
local function multiply_in_lua(c, first, last)
  local x, y, z, n = a:data(), b:data(), c:data(), size
  for left = 0, n - 1, BLOCK do
    for from = 0, n - 1, BLOCK do
      for i = first - 1, last - 1 do
        for k = from, math.min(from + BLOCK, n) - 1 do
          local factor = x[i * n + k]
          for j = left, math.min(left + BLOCK, n) - 1 do
            z[i * n + j] = z[i * n + j] + factor * y[k * n + j]
          end
        end
      end
    end
  end
end

--- The same by BLAS, one thread in each worker.
local function multiply_by_blas(c, first, last)
  local ffi = require "ffi"
  ffi.cdef [[
    void openblas_set_num_threads(int);
    void cblas_dgemm(int order, int transpose_a, int transpose_b, int m, int n, int k,
      double alpha, const double *a, int lda, const double *b, int ldb,
      double beta, double *c, int ldc);
  ]]
  local blas = ffi.load "libopenblas.so.0"
  blas.openblas_set_num_threads(1)
  local by_rows, as_it_is, offset = 101, 111, (first - 1) * size
  blas.cblas_dgemm(by_rows, as_it_is, as_it_is, last - first + 1, size, size, 1,
    a:data() + offset, size, b:data(), size, 0, c:data() + offset, size)
end

local bands = {}
for first = 1, size, BAND do bands[#bands + 1] = { first, math.min(first + BAND - 1, size) } end

tidemill.with(function(pool)
  local function product(multiply, name)
    local c = tidemill.matrix("double", size, size)
    local started = tidemill.clock()
    pool:starmap(function(first, last) multiply(c, first, last) end, bands, 1)
    local seconds = tidemill.clock() - started
    local gflops = 2 * size ^ 3 / seconds / 1e9
    io.stderr:write(("%s: %.3f s, %.2f GFLOP/s\n"):format(name, seconds, gflops))
    return c
  end

  --- Element (row, column) by the definition.
  local function element(row, column)
    local sum = 0
    for k = 1, size do sum = sum + a:get(row, k) * b:get(k, column) end
    return sum
  end

  local in_lua = product(multiply_in_lua, "LuaJIT")
  local right = 0
  for i = 1, 100 do
    local row, column = 1 + i * 37 % size, 1 + i * 91 % size
    if in_lua:get(row, column) == element(row, column) then right = right + 1 end
  end
  print(("%d x %d: %d of 100 elements are right"):format(size, size, right))

  if not pcall(require("ffi").load, "libopenblas.so.0") then
    return print "BLAS is not installed"
  end
  local by_blas, differences = product(multiply_by_blas, "BLAS"), 0
  for i = 1, size * size do
    if by_blas[i] ~= in_lua[i] then differences = differences + 1 end
  end
  print(("BLAS: %d of %d elements differ"):format(differences, size * size))
end)
