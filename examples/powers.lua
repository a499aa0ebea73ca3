-- starmap: each item is a table, and its elements become the arguments.

local tidemill = require "tidemill"

local function power(base, exponent)
  local product = 1
  for _ = 1, exponent do product = product * base end
  return product
end

tidemill.with(4, function(pool)
  local items = { { 2, 3 }, { 3, 4 }, { 4, 5 }, { 5, 6 }, { 2, 53 } }

  local powers = pool:starmap(power, items)
  for i, item in ipairs(items) do
    print(("%d ^ %d = %d"):format(item[1], item[2], powers[i]))
  end

  -- A function of the library and a lambda in a string do as well.
  local by_library = pool:starmap(math.pow, items)
  local by_lambda = pool:starmap("base, exponent -> base ^ exponent", items)
  for i = 1, #items do assert(powers[i] == by_library[i] and powers[i] == by_lambda[i]) end
  print "the library and the lambda agree"
end)
