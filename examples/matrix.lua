-- Matrix products: many small ones by starmap, and one large one split by rows.
-- usage: tidemill matrix.lua [SIZE]

local tidemill = require "tidemill"

--- a * b for matrices as lists of rows.
local function multiply(a, b)
  local product = {}
  for i = 1, #a do
    local row, out = a[i], {}
    for j = 1, #b[1] do
      local sum = 0
      for k = 1, #b do sum = sum + row[k] * b[k][j] end
      out[j] = sum
    end
    product[i] = out
  end
  return product
end

local function show(m)
  local rows = {}
  for i, row in ipairs(m) do rows[i] = "[" .. table.concat(row, ", ") .. "]" end
  return "[" .. table.concat(rows, ", ") .. "]"
end

--- A matrix of small whole numbers, so that every product of two is exact.
local function sample(size, seed)
  local m = {}
  for i = 1, size do
    m[i] = {}
    for j = 1, size do m[i][j] = (i * seed + j * 7) % 10 end
  end
  return m
end

local size = tonumber(arg[1]) or 512

tidemill.with(function(pool)
  local pairs_of_matrices = {
    { { { 1, 2 }, { 3, 4 } }, { { 5, 6 }, { 7, 8 } } },
    { { { 2, 0 }, { 1, 2 } }, { { 1, 1 }, { 0, 1 } } },
    { { { 0, 1 }, { 1, 0 } }, { { 9, 8 }, { 7, 6 } } },
  }
  for i, product in ipairs(pool:starmap(multiply, pairs_of_matrices)) do
    print(show(pairs_of_matrices[i][1]) .. " * " .. show(pairs_of_matrices[i][2]) .. " = "
      .. show(product))
  end

  -- `b` goes along with the function once per worker, not once per row.
  local a, b = sample(size, 3), sample(size, 5)
  local function row_of_product(row) return multiply({ row }, b)[1] end

  local from = tidemill.clock()
  local parallel = pool:map(row_of_product, a)
  local parallel_time = tidemill.clock() - from
  from = tidemill.clock()
  local plain = multiply(a, b)
  local plain_time = tidemill.clock() - from

  local trace = 0
  for i = 1, size do
    for j = 1, size do assert(parallel[i][j] == plain[i][j]) end
    trace = trace + parallel[i][i]
  end
  print(("%dx%d by rows: %.3f s with %d workers, %.3f s in one process; trace %d"):format(
    size, size, parallel_time, pool.processes, plain_time, trace))
end)
