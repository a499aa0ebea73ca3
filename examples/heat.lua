-- Heat that spreads over a plate: in each step every point becomes the mean of its neighbours
-- (Jacobi's method). Some processes do it together in shared memory, each a band of rows, and wait
-- for each other after each step: nobody may run ahead and read what is not there yet.

local tidemill = require "tidemill"

local rows, cols, steps, workers = 200, 200, 300, 2

--- One step for the rows from `first` to `last`, from `old` to `new`.
local function step(old, new, first, last)
  for r = first, last do
    for c = 2, cols - 1 do
      new:set(r, c, 0.25 * (old:get(r - 1, c) + old:get(r + 1, c) + old:get(r, c - 1)
        + old:get(r, c + 1)))
    end
  end
end

--- A plate with a hot upper edge, twice: a step reads one and writes the other.
local function plates()
  local old, new = tidemill.matrix("double", rows, cols), tidemill.matrix("double", rows, cols)
  for c = 1, cols do
    old:set(1, c, 100)
    new:set(1, c, 100)
  end
  return old, new
end

local function in_parallel()
  local old, new = plates()
  local barrier = tidemill.barrier(workers)
  local all = {}
  for i = 1, workers do
    local inner = rows - 2
    local first = 2 + math.floor(inner * (i - 1) / workers)
    local last = 1 + math.floor(inner * i / workers)
    all[i] = tidemill.process(function()
      local from, to = old, new
      for _ = 1, steps do
        step(from, to, first, last)
        from, to = to, from
        barrier:wait()
      end
    end)
    all[i]:start()
  end
  for _, process in ipairs(all) do process:result() end
  return steps % 2 == 0 and old or new
end

local function alone()
  local from, to = plates()
  for _ = 1, steps do
    step(from, to, 2, rows - 1)
    from, to = to, from
  end
  return from
end

local started = tidemill.clock()
local together = in_parallel()
io.stderr:write(("%d processes: %.3f s\n"):format(workers, tidemill.clock() - started))
started = tidemill.clock()
local single = alone()
io.stderr:write(("one process: %.3f s\n"):format(tidemill.clock() - started))

local differences = 0
for r = 1, rows do
  for c = 1, cols do
    if together:get(r, c) ~= single:get(r, c) then differences = differences + 1 end
  end
end
print(("after %d steps, from the hot edge down the middle:"):format(steps))
for _, r in ipairs { 1, 2, 5, 10, 20, 50 } do
  print(("row %3d: %7.3f"):format(r, together:get(r, cols / 2)))
end
print(("%d of %d points differ from what one process computes"):format(differences, rows * cols))
