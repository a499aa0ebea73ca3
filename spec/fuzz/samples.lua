--- Values for the fuzzer to begin with, by name; together they have every tag of the format.
---
--- The fuzz target runs this file too, and loads no bytecode but that of the functions in here. So
--- they only return what they hold: whatever a damaged message binds to them, calling them calls
--- nothing else.
---@param register fun(name: string, metatable: table)

local register = ...
local ffi = require "ffi"

ffi.cdef "struct fuzz_point { double x; int32_t y; };"

local samples = {}

local function sample(name, ...)
  samples[#samples + 1] = { name = name, n = select("#", ...), ... }
end

local function fill(count, make)
  local t = {}
  for i = 1, count do t[i] = make(i) end
  return t
end

sample("nothing")
sample("scalars", nil, false, true, 0, 63, 64, -1, 32767, -32768, 40000, -2 ^ 31, 2 ^ 31, 0.5,
  -0.0, 1 / 0, 0 / 0)
sample("strings", "", "a", ("b"):rep(63), ("c"):rep(64), ("\0\255"):rep(70))
sample("one", { 1 })

sample("arrays", {}, { 1, "two", false }, { nil, 2 }, { { {} }, { { "deep" } } })
sample("pairs", { a = 1 }, { [true] = "t", [1.5] = -1, [{}] = {} }, { 1, 2, x = 3, [-1] = 4 })
sample("wide", fill(300, function(i) return i % 3 == 0 and "s" or i end),
  (function()
    local t = {}
    for i = 1, 300 do t["k" .. i] = i end
    return t
  end)())
sample("numbers", fill(9, function(i) return i end), fill(9, function(i) return 300 * i end),
  fill(9, function(i) return 70000 * i end), fill(9, function(i) return i / 4 end))
sample("records", fill(6, function(i) return { id = i, name = "n" .. i } end),
  fill(6, function(i) return { id = i, tags = { i }, up = { id = i, name = "u" } } end))

do
  local shared, ring = { 1 }, {}
  ring.self, ring[1] = ring, { ring, shared, shared }
  sample("sharing", shared, { shared, [shared] = shared }, ring)
  local deep, records = {}, {}
  for _ = 1, 320 do deep = { deep } end
  for i = 1, 160 do records = { id = i, next = records } end
  sample("later", deep, shared, deep)
  sample("chain", records)
end

local Registered = { __index = { tag = "registered" } }
local Hooked, Holder = {}, {}
register("fuzz.Registered", Registered)
Hooked.__tidemill = {
  encode = function() return { 1, "plain" } end,
  decode = function(plain) return { plain } end,
}
Holder.__index = Holder

sample("metatables", setmetatable({ 1 }, Registered), setmetatable({ 2 }, Holder),
  setmetatable({ 3 }, Holder), setmetatable({}, { __mode = "k" }))
do
  local hooked = setmetatable({}, Hooked)
  sample("hooks", hooked, { hooked, setmetatable({ 1 }, Hooked) })
end

sample("names", math.floor, string, { string.rep, math, table.concat })
sample("cdata", 5LL, 7ULL, ffi.new("complex", 1, -2), ffi.new("double[3]", 1, 2, 3),
  ffi.new("int16_t[?]", 3, 1, 2, 3), ffi.new("int8_t[2][3]"), ffi.new("struct fuzz_point", 1, 2))

do
  local count, list = 0, { 1, { 2 } }
  local function get() return count end
  local function set(value) count = value end
  local function me() return me, list end
  local function outer() return function() return list, count end end
  sample("functions", function() end, function(...) return ... end, get, set)
  sample("upvalues", { get = get, set = set, list }, me, outer, outer())
  fuzz_global, fuzz_other = { "global" }, get -- luacheck: ignore
  sample("globals", function() return fuzz_global, fuzz_other end, -- luacheck: ignore
    function() return fuzz_other end) -- luacheck: ignore
  local environment = { x = 1 }
  environment.f = setfenv(function() return x end, environment) -- luacheck: ignore
  sample("environments", environment.f, environment)
  local self = setmetatable({}, Hooked)
  self.f = function() return self, list end
  sample("mixed", self, { self.f, list, 3LL, fill(9, function(i) return i end) })
end

return samples
