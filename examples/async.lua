-- Start work, do something else, come back for it: with a timeout, and with an error.

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
  local long = pool:apply_async(slow_sum, { 3e8 })
  local short = pool:submit(divide, 17, 5)

  local words = {}
  for word in ("meanwhile the script goes on"):gmatch "%a+" do words[#words + 1] = word end
  print(#words .. " words counted, the long sum is " .. (long:ready() and "ready" or "not ready"))

  print("17 / 5 =", short:get())

  local ok, err = long:try(0.001)
  if not ok then print("not yet: " .. err.kind) end
  print("the long sum is " .. long:get()) -- a late result is kept

  local failed = pool:apply_async(divide, { 1, 0 })
  ok, err = failed:try()
  print("caught:", ok, err.kind, err.message:match "[^:]+$")
end)
