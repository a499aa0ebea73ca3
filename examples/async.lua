-- Start work, do something else, come back for it: with a timeout, with an error, by callback, or
-- in the order in which it is done.

local tidemill = require "tidemill"

local function slow_sum(n)
  local sum = 0
  for i = 1, n do sum = sum + i % 7 end
  return sum
end

local function divide(a, b)
  if b == 0 then error("cannot divide " .. a .. " by zero") end
  return a / b, a % b
end

tidemill.with(2, function(pool)
  local long = pool:apply_async(slow_sum, { 1e8 })
  local short = pool:submit(divide, 17, 5)

  local words = {}
  for word in ("meanwhile the script goes on"):gmatch "%a+" do words[#words + 1] = word end
  print(#words .. " words counted, the long sum is " .. (long:ready() and "ready" or "not ready"))

  print("17 / 5 =", short:get())

  -- `get` raises what went wrong; a timeout loses nothing, the result can be asked for again.
  local ok, err = pcall(long.get, long, 0.001)
  if not ok then print("not yet: " .. err.kind) end
  print("the long sum is " .. long:get())

  -- `try` returns it instead.
  local failed = pool:apply_async(divide, { 1, 0 })
  ok, err = failed:try()
  print("caught:", ok, err.kind, err.message:match "[^:]+$")

  -- Callbacks run in the script, while it waits for whatever it may be.
  local told = pool:apply_async(divide, { 22, 7 }, {
    callback = function(_, remainder) print("callback: 22 leaves " .. remainder) end,
  })
  told:wait()
  local warned = pool:apply_async(divide, { 2, 0 }, {
    error_callback = function(problem) print("error callback: " .. problem.kind) end,
  })
  warned:wait()

  -- The quick ones do not wait for the slow one, though that was the first.
  local rounds = {}
  for _, n in ipairs { 2e8, 100, 1000 } do rounds[pool:submit(slow_sum, n)] = n end
  local results = {}
  for result in pairs(rounds) do results[#results + 1] = result end
  for result in tidemill.as_completed(results, 60) do
    print(("completed: the sum of %d is %d"):format(rounds[result], result:get()))
  end
end)
