-- An event loop owns the waiting: a timer ticks while a pool works, and neither blocks the other.
-- Needs luv, the bindings of libuv (Debian: lua-luv).

local tidemill = require "tidemill"
local uv = require "luv"

local function is_prime(n)
  if n < 2 then return false end
  for d = 2, math.sqrt(n) do
    if n % d == 0 then return false end
  end
  return true
end

local function count_primes(first, last)
  local count = 0
  for n = first, last do
    if is_prime(n) then count = count + 1 end
  end
  return count
end

local pool = tidemill.pool()
local total, replies, ticks = 0, 0, 0

local blocks, size = 20, 50000
for i = 1, blocks do
  pool:apply_async(count_primes, { (i - 1) * size + 1, i * size }, {
    callback = function(count)
      total, replies = total + count, replies + 1
      if replies % 5 == 0 then print(("%d of %d replies"):format(replies, blocks)) end
    end,
  })
end

local timer = uv.new_timer()
timer:start(10, 10, function() ticks = ticks + 1 end) -- milliseconds

-- The descriptor is readable when something has arrived; `poll` takes it in and runs the callbacks.
local watcher = uv.new_poll(pool:fd())
watcher:start("r", function()
  if not pool:poll() then -- nothing is outstanding
    watcher:close()
    timer:close()
  end
end)

uv.run()
pool:close()
pool:join()
print(("%d primes below a million; the timer %s meanwhile"):format(total,
  ticks > 0 and "ticked" or "stood still"))
