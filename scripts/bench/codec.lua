-- The codec beside LuaJIT's own string.buffer, on the same values in one run, and the figures of
-- data on its way to a worker. Minima, in the processor's time where one process does all.

local tidemill = require "tidemill"
local buffer = require "string.buffer"
local clock = tidemill.clock

local ROUNDS = 15

--- The least time of some rounds, in seconds.
local function least(f, now)
  local best = math.huge
  for _ = 1, ROUNDS do
    collectgarbage()
    local from = now()
    f()
    best = math.min(best, now() - from)
  end
  return best
end

local function filled(count, make)
  local items = {}
  for i = 1, count do items[i] = make(i) end
  return items
end

local function mixed(i)
  if i % 4 == 0 then return i * 0.5 end
  if i % 4 == 1 then return "text " .. i end
  if i % 4 == 2 then return i % 3 == 0 end
  return { i, i + 1, x = i }
end

local CASES = {
  { "1e6 doubles", filled(1e6, function(i) return i + 0.5 end) },
  { "1e6 whole numbers", filled(1e6, function(i) return i end) },
  { "1e5 records", filled(1e5, function(i)
    return { id = i, name = "item" .. i, score = i * 0.5 }
  end) },
  { "1e4 nested", filled(1e4, function(i)
    return { pos = { x = i, y = i * 2.5 }, tags = { "a", "b", "c" },
             sub = { k = { v = { 1, 2, 3 } } } }
  end) },
  { "2e5 strings", filled(2e5, function(i) return "some string " .. i end) },
  { "5e4 mixed", filled(5e4, mixed) },
}

local ROW = "%-20s %10s %10s %6s   %10s %10s %6s"

local function ms(seconds) return ("%.2f ms"):format(seconds * 1e3) end
local function ratio(ours, theirs) return ("%.2f"):format(ours / theirs) end

local function compare(name, value)
  local ours, theirs
  local encode = least(function() ours = tidemill.encode(value) end, os.clock)
  local their_encode = least(function() theirs = buffer.encode(value) end, os.clock)
  local decode = least(function() tidemill.decode(ours) end, os.clock)
  local their_decode = least(function() buffer.decode(theirs) end, os.clock)
  print(ROW:format(name, ms(encode), ms(their_encode), ratio(encode, their_encode),
                   ms(decode), ms(their_decode), ratio(decode, their_decode)))
end

print(ROW:format("", "encode", "buffer's", "ratio", "decode", "buffer's", "ratio"))
for _, case in ipairs(CASES) do compare(case[1], case[2]) end
print()

local function report(name, seconds, bar)
  print(("%-36s %12.3f us   bar %g us"):format(name, seconds * 1e6, bar * 1e6))
end

local function per_call(count, f)
  return least(function() for _ = 1, count do f() end end, os.clock) / count
end

local factor = 3
local function closure(x) return x * 2 + factor end

report("encode a closure", per_call(1e4, function() tidemill.encode(closure) end), 1e-6)

local function length(x) return #x end

tidemill.with(2, function(pool)
  local doubles = CASES[1][2]
  local text = ("x"):rep(64 * 1024 * 1024)
  local cold = {} -- a pool each: the system may have memory at hand or not
  for i = 1, 7 do
    tidemill.with(2, function(fresh)
      fresh:map(length, { "both", "start" })
      local from = clock()
      fresh:apply(length, { text })
      cold[i] = clock() - from
    end)
  end
  table.sort(cold)
  report("64 MiB string to a worker, cold", cold[4], 60e-3)
  report("64 MiB string to a worker, warm",
         least(function() pool:apply(length, { text }) end, clock), 25e-3)
  report("1e6 doubles to a worker",
         least(function() pool:apply(length, { doubles }) end, clock), 17e-3)
end)
