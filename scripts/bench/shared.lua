-- Shared arrays against raw pointers in the same run, atomic addition, and what it costs to hand an
-- array to a task. Each figure is the best of many short rounds, those compared in turns.
--
--   scripts/run scripts/bench/shared.lua [elements]

local ffi = require "ffi"
local tidemill = require "tidemill"

local elements = tonumber((...)) or 1000
local ROUNDS, WORK = 60, 2e6 -- rounds; elements a round goes over

local function best(rounds, f, ...)
  local least = math.huge
  for _ = 1, rounds do
    local start = tidemill.clock()
    f(...)
    least = math.min(least, tidemill.clock() - start)
  end
  return least
end

-- ---- loops ----

local loops = {
  { "sum",
    function(p)
      local sum = 0
      for i = 0, elements - 1 do sum = sum + p[i] end
      return sum
    end,
    function(a)
      local sum = 0
      for i = 1, #a do sum = sum + a[i] end
      return sum
    end },
  { "saxpy",
    function(p, q)
      for i = 0, elements - 1 do q[i] = q[i] + 0.5 * p[i] end
    end,
    function(a, b)
      for i = 1, #a do b[i] = b[i] + 0.5 * a[i] end
    end },
  { "stencil",
    function(p, q)
      for i = 1, elements - 2 do q[i] = (p[i - 1] + p[i] + p[i + 1]) / 3 end
    end,
    function(a, b)
      for i = 2, #a - 1 do b[i] = (a[i - 1] + a[i] + a[i + 1]) / 3 end
    end },
}

local side = math.ceil(math.sqrt(elements))
local matrix_loop = { "matrix",
  function(p, q)
    for r = 0, side - 1 do
      for c = 0, side - 1 do q[r * side + c] = q[r * side + c] + 0.5 * p[r * side + c] end
    end
  end,
  function(a, b)
    for r = 1, a.rows do
      for c = 1, a.cols do b:set(r, c, b:get(r, c) + 0.5 * a:get(r, c)) end
    end
  end }

local function compare(name, raw, shared, a, b)
  local p, q = ffi.cast("double *", a:data()), ffi.cast("double *", b:data())
  local repeats = math.ceil(WORK / elements)
  local function run(f, x, y)
    for _ = 1, repeats do f(x, y) end
  end
  local least = { math.huge, math.huge }
  for _ = 1, ROUNDS do
    least[1] = math.min(least[1], best(1, run, raw, p, q))
    least[2] = math.min(least[2], best(1, run, shared, a, b))
  end
  local ns = 1e9 / repeats / elements
  print(("%-8s raw pointer %6.3f ns, array %6.3f ns an element: %5.1f %%"):format(name,
    least[1] * ns, least[2] * ns, 100 * least[2] / least[1]))
end

local function numbers() return tidemill.array("double", elements):fill(1) end
for _, loop in ipairs(loops) do compare(loop[1], loop[2], loop[3], numbers(), numbers()) end
local function square() return tidemill.matrix("double", side, side):fill(1) end
compare(matrix_loop[1], matrix_loop[2], matrix_loop[3], square(), square())

-- ---- values ----

for _, ctype in ipairs { "int64_t", "double" } do
  local value, count = tidemill.value(ctype), 1e6
  local least = best(20, function()
    for _ = 1, count do value:add(1) end
  end)
  print(("value:add %-8s %6.2f ns"):format(ctype, least / count * 1e9))
end

-- ---- handing over ----

tidemill.with(1, function(pool)
  local mib64 = tidemill.array("double", 8 * 1024 * 1024):fill(1)
  local function run(argument)
    for _ = 1, 200 do
      pool:apply(function(x) return x ~= nil end, { argument })
    end
  end
  run(1)
  run(mib64)
  local least = { math.huge, math.huge }
  for _ = 1, 20 do
    least[1] = math.min(least[1], best(1, run, 1))
    least[2] = math.min(least[2], best(1, run, mib64))
  end
  print(("apply with a number %.2f us, with 64 MiB %.2f us"):format(least[1] / 200 * 1e6,
    least[2] / 200 * 1e6))
end)
