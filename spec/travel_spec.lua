-- What travels, to a worker and back, and what does not.

local ffi = require "ffi"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local function round_trip(...) return tidemill.decode(tidemill.encode(...)) end

local function refused(...)
  local ok, err = pcall(tidemill.encode, ...)
  assert.is_false(ok)
  assert.equal("encode", err.kind)
  return err.message
end

describe("plain data", function()
  it("comes back as it was", function()
    local values = { 0, -0.0, 1, -1, 63, 64, -64, 2 ^ 31, -2 ^ 31, 2 ^ 53, -2 ^ 53, 2 ^ 60, 0.1,
      1e308, 5e-324, 1 / 0, -1 / 0, true, false, "", "text", ("x"):rep(63), ("x"):rep(64),
      ("\0\255"):rep(500) }
    for _, value in ipairs(values) do
      assert.equal(value, (round_trip(value)))
      if value == 0 then assert.equal(1 / value, 1 / round_trip(value)) end
    end
    local nan = round_trip(0 / 0)
    assert.is_true(nan ~= nan)
    assert.is_nil((round_trip(nil)))
    assert.equal(3, select("#", round_trip(nil, 1, nil)))
  end)

  it("keeps tables with holes, any keys, and any size", function()
    local key = { "key" }
    local value = { 1, nil, 3, [0] = 0, [-1] = -1, [2 ^ 40] = 1, [1.5] = 1.5, [true] = 1,
      [key] = key, text = { nested = {} } }
    local back = round_trip(value)
    assert.same({ 1, nil, 3 }, { back[1], back[2], back[3] })
    for _, k in ipairs { 0, -1, 2 ^ 40, 1.5, true } do assert.equal(value[k], back[k]) end
    assert.same({ nested = {} }, back.text)
    local key_back = next(back, nil)
    for k in pairs(back) do if type(k) == "table" then key_back = k end end
    assert.equal(key_back, back[key_back])
    for _, count in ipairs { 254, 255, 256, 257, 1000 } do
      local list, map = {}, {}
      for i = 1, count do list[i], map["k" .. i] = i, i end
      assert.same({ list, map }, round_trip { list, map })
    end
  end)

  it("keeps cycles and sharing", function()
    local shared = { 1 }
    local value = { shared, shared }
    value.self = value
    local back, again = round_trip(value, shared)
    assert.equal(back, back.self)
    assert.equal(back[1], back[2])
    assert.equal(back[1], again)
    local dag = {}
    for _ = 1, 40 do dag = { dag, dag } end
    local bytes = tidemill.encode(dag)
    assert.is_true(#bytes < 2000)
    back = tidemill.decode(bytes)
    for _ = 1, 40 do
      assert.equal(back[1], back[2])
      back = back[1]
    end
  end)

  it("may be a hundred thousand levels deep", function()
    local list = false
    for i = 1, 100000 do list = { i, list } end
    tidemill.with(1, function(pool)
      local back = pool:apply(function(value) return value end, { list })
      for i = 100000, 1, -1 do
        assert.equal(i, back[1])
        back = back[2]
      end
      assert.is_false(back)
    end)
  end)

  it("has metatables by value, cycles included", function()
    local Account = {}
    Account.__index = Account
    function Account:add(n) self.balance = self.balance + n end
    assert.is_nil(getmetatable((round_trip { balance = 1 })))
    local a, b = unpack((round_trip { setmetatable({ balance = 1 }, Account),
      setmetatable({ balance = 2 }, Account) }))
    a:add(5)
    assert.equal(6, a.balance)
    assert.equal(getmetatable(a), getmetatable(b))
    assert.equal(getmetatable(a).__index, getmetatable(a))
  end)

  it("has 64-bit integers, complex numbers, and arrays and structs of plain data", function()
    pcall(ffi.cdef, "struct travel_point { double x; int32_t y; };")
    for _, value in ipairs { 5LL, -5LL, 2LL ^ 62, 7ULL, 0xffffffffffffffffULL,
      ffi.new("complex", 1, -2) } do
      assert.equal(tostring(value), tostring((round_trip(value))))
      assert.equal(tostring(ffi.typeof(value)), tostring(ffi.typeof((round_trip(value)))))
    end
    local array = round_trip(ffi.new("double[3]", { 1, 2.5, -3 }))
    assert.same({ 1, 2.5, -3 }, { array[0], array[1], array[2] })
    array = round_trip(ffi.new("int16_t[?]", 4, { 1, 2, 3, 4 }))
    assert.equal(4, array[3])
    assert.equal(8, ffi.sizeof(array))
    local point = round_trip(ffi.new("struct travel_point", 1.5, 3))
    assert.same({ 1.5, 3 }, { point.x, point.y })
    assert.is_truthy(refused { p = ffi.new("int *") }:find("field p: a pointer (int *)", 1, true))
  end)
end)

describe("classes", function()
  it("keep their metatable if they are registered", function()
    local Vector = { __index = { length = function(v) return math.sqrt(v.x ^ 2 + v.y ^ 2) end } }
    tidemill.register("travel.Vector", Vector)
    tidemill.with(1, function(pool)
      local v = setmetatable({ x = 3, y = 4 }, Vector)
      assert.equal(5, pool:apply("v -> v:length()", { v }))
      assert.equal(Vector, getmetatable(pool:apply("v -> v", { v })))
    end)
  end)

  it("may say by hooks how they travel, userdata too", function()
    local Handle = {}
    Handle.__tidemill = {
      encode = function(handle) return { handle.name } end,
      decode = function(plain) return setmetatable({ name = plain[1] .. "!" }, Handle) end,
    }
    local value = setmetatable({ name = "h", secret = coroutine.create(print) }, Handle)
    local back = round_trip { value, value }
    assert.equal("h!", back[1].name)
    assert.equal(back[1], back[2])
    local proxy = newproxy(true)
    getmetatable(proxy).__tidemill = { encode = function() return 1 end,
      decode = function(n) return n + 1 end }
    assert.equal(2, (round_trip(proxy)))
  end)

  it("whose hooks misbehave are an error that harms nothing", function()
    local function hooked(encode, decode)
      return setmetatable({}, { __tidemill = { encode = encode, decode = decode } })
    end
    local function pass(v) return v end
    assert.is_truthy(refused { a = hooked(function() error "no" end) }
      :find("field a: a value whose encode hook raised: ", 1, true))
    refused(hooked(function() coroutine.yield() end))
    refused(hooked(function(v) return setmetatable({}, getmetatable(v)) end))
    refused(hooked(function() return io.stdout end))
    for _, decode in ipairs { function() error "no" end, function() end } do
      local bytes = tidemill.encode(hooked(function() return 1 end, decode))
      local ok, err = pcall(tidemill.decode, bytes)
      assert.is_false(ok)
      assert.equal("decode", err.kind)
    end
    local nested = hooked(function() return tidemill.encode { 1, { 2 } } end,
      function(s) return (tidemill.decode(s)) end)
    assert.same({ { 1, { 2 } }, { 3 } }, (round_trip { nested, { 3 } }))
    local list = {}
    for i = 1, 300 do list[i] = { i } end
    list[100] = hooked(function()
      for i = 1, 300 do list[i], list["k" .. i] = nil, i end
      return 1
    end, pass)
    pcall(tidemill.encode, list) -- an error or a value, and then all is as before
    assert.same({ 1 }, (round_trip { 1 }))
    tidemill.with(1, function(pool)
      local inside = hooked(function() return pool:apply(pass, { 1 }) end, pass)
      local ok, err = pool:apply_async(pass, { inside }):try()
      assert.is_false(ok)
      assert.equal("encode", err.kind)
      assert.equal(7, pool:apply(pass, { 7 }))
    end)
  end)
end)

travel_scale = 10 -- luacheck: ignore
function travel_factorial(n) return n < 2 and 1 or n * travel_factorial(n - 1) end -- luacheck: ignore

describe("functions", function()
  local pool

  before_each(function() pool = tidemill.pool(2) end)
  after_each(function() pool:terminate() end)
  leaks.watch(after_each, assert) -- after the pool's end

  -- Each function is run in a worker; what it returns there is what it returns here.
  local number, list, floor, str = 5, { 1, { 2 } }, math.floor, string
  local print_here, has_print = print, function(p) return p == print end
  local function recursive(n) return n == 0 and 0 or n + recursive(n - 1) end
  local is_even
  local function is_odd(n) return n ~= 0 and is_even(n - 1) end
  function is_even(n) return n == 0 or is_odd(n - 1) end
  local self_table = {}
  function self_table.get() return self_table.value end
  self_table.value = 11
  local count = 0
  local function increment() count = count + 1 return count end
  local function read() return count end

  local cases = {
    { "a number as upvalue", function() return number end, 5 },
    { "a table as upvalue", function() return list[2][1] end, 2 },
    { "a library function as upvalue", function() return floor(2.7) end, 2 },
    { "a library as upvalue", function() return str.rep("ab", 2) end, "abab" },
    { "local ffi", function() return tonumber(ffi.new("int64_t", 7)) end, 7 },
    { "local print", function() return has_print(print_here) end, true },
    { "recursion", function() return recursive(10) end, 55 },
    { "mutual recursion", function() return is_even(10) end, true },
    { "a table that holds the function", function() return self_table.get() end, 11 },
    { "two closures that share a counter", function()
      increment()
      increment()
      return read()
    end, 2 },
    { "nested functions", function()
      local function outer(a) return function(b) return a + b + number end end
      return outer(1)(2)
    end, 8 },
    { "varargs", function(...) return select("#", ...) end, 0 },
    { "bytecode builtins", function() return math.deg(math.pi) + #table.remove { "x" } end, 181 },
    { "string methods", function() return ("x"):rep(3):upper() end, "XXX" },
    { "a global that it reads", function() return travel_scale * 2 end, 20 }, -- luacheck: ignore
    { "a recursive global function", function()
      return travel_factorial(5) -- luacheck: ignore
    end, 120 },
    { "a global read by a nested function", function()
      return (function() return travel_scale end)() -- luacheck: ignore
    end, 10 },
    { "its own environment", setfenv(function() return x end, { x = 9 }), 9 }, -- luacheck: ignore
    { "an environment that inherits", setfenv(function() return math.abs(x) end, -- luacheck: ignore
      setmetatable({ x = -9 }, { __index = _G })), 9 },
  }
  for _, case in ipairs(cases) do
    local name, f, expected = unpack(case)
    it("take along " .. name, function()
      assert.equal(expected, pool:apply(f))
      assert.equal(expected, (round_trip(f))())
    end)
  end

  it("see a global as it is at the call", function()
    for value = 1, 300 do
      travel_scale = value -- luacheck: ignore
      assert.equal(value * 2, pool:apply(function() return travel_scale * 2 end)) -- luacheck: ignore
    end
    travel_scale = 10 -- luacheck: ignore
  end)

  it("come back from jobs, alone and in tables", function()
    local add = pool:apply(function(n) return function(m) return n + m end end, { 5 })
    assert.equal(8, add(3))
    local pair = pool:apply(function()
      local n = 0
      return { up = function() n = n + 1 end, get = function() return n end }
    end)
    pair.up()
    pair.up()
    assert.equal(2, pair.get())
  end)

  it("never see a stale upvalue, however often they are sent with another", function()
    local function scaled(k)
      return function(x)
        local sum = 0
        for i = 1, 60 do sum = sum + i * k + x end
        return sum
      end
    end
    local items = {}
    for i = 1, 130 do items[i] = i end
    for k = 1, 400 do
      local results = pool:map(scaled(k), items, 65)
      for i = 1, 130, 43 do assert.equal(1830 * k + 60 * i, results[i]) end
      assert.equal(1830 * k + 60, pool:apply(scaled(k), { 1 }))
    end
  end)

  it("may be written as a lambda, or named in a module", function()
    assert.same({ 1, 4, 9 }, pool:map("x -> x * x", { 1, 2, 3 }))
    assert.same({ 3, 7 }, pool:starmap("x, y -> x + y", { { 1, 2 }, { 3, 4 } }))
    assert.equal(3, pool:apply("... -> select('#', ...)", { n = 3 }))
    assert.equal("x", pool:apply("() -> 'x'"))
    assert.equal("ABC", pool:apply("string:upper", { "abc" }))
    for _, bad in ipairs { "x -> x +", "x > 1", "->", "", "1x -> 1", "a.b:", 7 } do
      local ok, err = pcall(pool.map, pool, bad, { 1 })
      assert.is_false(ok)
      assert.is_string(err)
    end
    assert.equal("task", select(2, pool:submit("no.such.module:f"):try()).kind)
  end)

  it("that cannot travel are named by the path to the reason", function()
    local out, pattern = io.stdout, { deep = { coroutine.create(print) } }
    local ok, err = pcall(pool.map, pool, function() return out end, { 1 })
    assert.is_false(ok)
    assert.equal("encode", err.kind)
    local named = "cannot send upvalue 'out' of function <.-travel_spec.lua:%d+>: userdata"
    assert.is_truthy(err.message:find(named), err.message)
    ok, err = pcall(pool.map, pool, function() return pattern end, { 1 })
    assert.is_false(ok)
    named = "upvalue 'pattern' of function <.->, field deep%[1%]: a coroutine"
    assert.is_truthy(err.message:find(named), err.message)
    ok, err = pcall(pool.map, pool, "x -> x", { 1, { a = { b = io.stdout } } })
    assert.is_false(ok)
    assert.equal(2, err.index)
    assert.is_truthy(err.message:find("field a.b: userdata", 1, true), err.message)
  end)

  it("are compiled once for all calls", function()
    -- A function that is loaded anew for each call never gets hot; this one does.
    local function busy(x)
      local sum = 0
      for i = 1, 50 do sum = sum + (x * i) % 7 end
      return sum
    end
    local function compiled()
      local util = require "jit.util"
      local traces = 0
      while util.traceinfo(traces + 1) do traces = traces + 1 end
      return traces
    end
    local one = tidemill.pool(1)
    for i = 1, 200 do one:apply(busy, { i }) end
    local before = one:apply(compiled)
    for i = 1, 1000 do one:apply(busy, { i }) end
    assert.is_true(before > 0)
    assert.equal(before, one:apply(compiled))
    one:terminate()
  end)
end)

describe("bytes", function()
  local function shared() local t = { 1 } return { t, t, self = t } end
  local samples = { { 1, 2.5, "three", { four = true } }, ("x"):rep(300), shared(),
    setmetatable({ 1 }, { __mode = "k" }), { 5LL, 1e300 } }

  it("that are cut off anywhere are an error", function()
    for _, value in ipairs(samples) do
      local bytes = tidemill.encode(value)
      for length = 0, #bytes - 1 do
        local ok, err = pcall(tidemill.decode, bytes:sub(1, length))
        assert.is_false(ok)
        assert.equal("decode", err.kind)
      end
      local ok, err = pcall(tidemill.decode, bytes .. "x")
      assert.is_false(ok)
      assert.equal("decode", err.kind)
    end
  end)

  it("with flipped bits are an error or a value", function()
    for _, value in ipairs(samples) do
      local bytes = tidemill.encode(value)
      for at = 1, #bytes do
        for bit = 0, 7 do
          local flipped = require("bit").bxor(bytes:byte(at), 2 ^ bit)
          local ok, err = pcall(tidemill.decode,
            bytes:sub(1, at - 1) .. string.char(flipped) .. bytes:sub(at + 1))
          if not ok then assert.equal("decode", err.kind) end
        end
      end
    end
  end)

  it("of a function that were changed never reach the loader", function()
    local bytes = tidemill.encode(function(a) return a + 1 end)
    local at = assert(bytes:find("\27LJ", 1, true))
    for offset = at, #bytes - 4 do
      local changed = bytes:sub(1, offset - 1) .. string.char((bytes:byte(offset) + 1) % 256)
        .. bytes:sub(offset + 1)
      assert.is_false((pcall(tidemill.decode, changed)))
    end
  end)
end)

describe("random values", function()
  -- Park and Miller's minimal standard generator, so that a seed says everything.
  local function generator(seed)
    return function(n)
      seed = seed * 16807 % 2147483647
      return seed % n + 1
    end
  end

  local function make(random, depth, made)
    local kind = random(depth > 0 and 12 or 7)
    if kind <= 2 then return random(1000) - 500 end
    if kind == 3 then return random(1000) / 7 end
    if kind == 4 then return ("s"):rep(random(100)) .. random(9) end
    if kind == 5 then return random(2) == 1 end
    if kind == 6 and #made > 0 then return made[random(#made)] end
    if kind == 7 then return ("k"):rep(3) end
    local value = {}
    made[#made + 1] = value
    for i = 1, random(6) - 1 do value[i] = make(random, depth - 1, made) end
    for _ = 1, random(4) - 1 do
      value["f" .. random(20)] = make(random, depth - 1, made)
    end
    if random(5) == 1 then setmetatable(value, { __mode = "k", tag = random(9) }) end
    return value
  end

  -- Equal, and of the same shape: `seen` pairs the tables of both sides.
  local function isomorphic(a, b, seen)
    if type(a) ~= "table" then return a == b end
    if type(b) ~= "table" then return false end
    if seen[a] or seen[b] then return seen[a] == b and seen[b] == a end
    seen[a], seen[b] = b, a
    for k, v in pairs(a) do if not isomorphic(v, b[k], seen) then return false end end
    for k in pairs(b) do if a[k] == nil then return false end end
    local x, y = getmetatable(a), getmetatable(b)
    return (x == nil) == (y == nil) and (x == nil or isomorphic(x, y, seen))
  end

  it("come back isomorphic", function()
    local first = os.time() % 1000000 + 1
    for seed = first, first + 500 do
      local value = make(generator(seed), 6, {})
      assert.is_true(isomorphic(value, round_trip(value), {}), "seed " .. seed)
    end
  end)
end)
