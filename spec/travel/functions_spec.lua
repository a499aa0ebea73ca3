-- Functions: what they take along, and what they are in the worker.

local ffi = require "ffi"
local leaks = require "support.leaks"
local point = require "support.point"
local tidemill = require "tidemill"
local travel = require "support.travel"

local each_way, raised, script = travel.each_way, travel.raised, travel.script
local there_and_back = travel.there_and_back

travel_scale = 10 -- luacheck: ignore

describe("functions", function()
  leaks.watch(after_each, assert)

  -- Each of these is run here, after decode(encode()), and in a worker: the answers must agree.
  local function agree(f, ...)
    local expected = { f(...) }
    local copy = there_and_back(f)
    assert.same(expected, { copy(...) })
    local args = { ... }
    tidemill.with(1, function(pool)
      for _ = 1, 3 do
        assert.same(expected, { pool:apply(f, args) })
        assert.same(expected[1], pool:map(function(x) return (f(unpack(x))) end, { args })[1])
      end
    end)
  end

  it("carries upvalues of every kind", function()
    local number, text, list, flag, nothing = 7, "text", { 1, { 2 } }, false, nil
    agree(function(x) return x + number, text, list[2][1], flag, nothing end, 1)
  end)

  it("carries library functions and libraries as upvalues", function()
    local floor, mathematics, concat, byte = math.floor, math, table.concat, string.byte
    agree(function(x)
      return floor(x), mathematics.sqrt(x), concat({ 1, 2 }, ","), byte("a"), mathematics == math
    end, 6.25)
  end)

  it("carries local print, require, pcall, ffi, bit, jit and string methods", function()
    local print, require, pcall, bit, jit = print, require, pcall, bit, jit
    agree(function(text)
      local ok, err = pcall(function() return text.missing.field end)
      return type(print), print == _G.print, require "string" == string, ok, type(err),
        bit.bor(1, 6), jit.version, tonumber(ffi.new("int32_t", 5)), ffi.sizeof "double",
        text:upper():rep(2, "-")
    end, "abc")
  end)

  it("carries modules as upvalues and what belongs to them", function()
    local lpeg = require "lpeg"
    local match, R = lpeg.match, lpeg.R
    agree(function(text) return match(R "az" ^ 1, text) end, "abc1")
    agree(function(x, y) return point.new(x, y):length() end, 3, 4)
  end)

  it("carries recursion, one's own and mutual", function()
    local function factorial(n) return n < 2 and 1 or n * factorial(n - 1) end
    agree(factorial, 10)
    local is_even
    local function is_odd(n)
      if n == 0 then return false end
      return is_even(n - 1)
    end
    function is_even(n)
      if n == 0 then return true end
      return is_odd(n - 1)
    end
    agree(is_even, 10)
    agree(is_odd, 7)
  end)

  it("carries functions that return or hold themselves", function()
    local function me() return me end
    local back = there_and_back(me)
    assert.equal(back, back())
    assert.not_equal(me, back)
    local box = {}
    box.f = function() return box end
    local copy = there_and_back(box)
    assert.equal(copy, copy.f())
    tidemill.with(1, function(pool)
      assert.is_true(pool:apply(function() return me() == me and box.f() == box end))
    end)
  end)

  it("keeps upvalues that closures share shared", function()
    local function counter()
      local count = 0
      return { up = function() count = count + 1 end, get = function() return count end }
    end
    local pair = counter()
    pair.up()
    each_way(function(carry)
      local back = carry(pair)
      back.up()
      back.up()
      assert.equal(3, back.get())
    end)
    assert.equal(1, pair.get())
    tidemill.with(1, function(pool)
      agree(function()
        local own = counter()
        own.up()
        return own.get()
      end)
      assert.equal(2, pool:apply(function(c)
        c.up()
        return c.get()
      end, { pair }))
    end)
  end)

  it("carries nested functions and deep upvalues", function()
    local a = 1
    agree(function(x)
      local b = 2
      return (function()
        local c = 3
        return (function() return a + b + c + x end)()
      end)()
    end, 10)
  end)

  it("carries varargs, many upvalues and constants", function()
    agree(function(...) return select("#", ...), (select(2, ...)) end, 1, "two", 3)
    local source = { "local t = {" }
    for i = 1, 59 do source[#source + 1] = ("%d,"):format(i) end
    source[#source + 1] = "}\n"
    for i = 1, 59 do source[#source + 1] = ("local u%d = t[%d]\n"):format(i, i) end
    source[#source + 1] = "return function() return 0"
    for i = 1, 59 do source[#source + 1] = (" + u%d"):format(i) end
    source[#source + 1] = " end"
    agree(script(table.concat(source)))
    agree(function() return 1e300, 12345678901234LL == 12345678901234LL, "\0\255", -0.0 end)
  end)

  it("carries functions in tables, as arguments and as results", function()
    tidemill.with(1, function(pool)
      local operations = { add = function(a, b) return a + b end, list = { math.max, math.min } }
      assert.equal(5, pool:apply(function(t) return t.add(2, 3) end, { operations }))
      assert.equal(3, pool:apply(function(t) return t.list[1](2, 3) end, { operations }))
      local add5 = pool:apply(function(n) return function(x) return x + n end end, { 5 })
      assert.equal(8, add5(3))
      assert.equal(math.floor, (pool:apply(function() return math.floor end)))
      local function make(n) return { f = function() return n * n end } end
      local made = pool:map(make, { 1, 2, 3 })
      for i = 1, 3 do assert.equal(i * i, made[i].f()) end
      assert.equal(9, pool:apply(made[3].f))
    end)
  end)

  it("takes library functions themselves as jobs, those in bytecode too", function()
    tidemill.with(2, function(pool)
      assert.same({ 1, 2 }, pool:map(math.floor, { 1.5, 2.5 }))
      assert.same({ math.deg(1), math.deg(2) }, pool:map(math.deg, { 1, 2 }))
      assert.same({ math.rad(1), math.rad(90) }, pool:map(math.rad, { 1, 90 }, 1))
      assert.same({ 3, 0 }, pool:map(string.len, { "abc", "" }))
      assert.equal("c", pool:apply(table.remove, { { "a", "b", "c" } }))
      assert.same({ "1", "true" }, pool:map(tostring, { 1, true }))
      local remove, move, getn, deg = table.remove, table.move, table.getn, math.deg
      assert.same({ { 1, 2 }, 2, deg(3) }, { pool:apply(function(t)
        remove(t)
        return move(t, 1, 2, 1, {}), getn(t), deg(3)
      end, { { 1, 2, 3 } }) })
    end)
  end)

  it("gives no stale answers when upvalues change between calls", function()
    tidemill.with(2, function(pool)
      local items, changing = {}, 0
      for i = 1, 200 do items[i] = i end
      local function add(x) return x + changing end
      local function make(i) return function(x) return x * i end end
      for round = 1, 60 do
        changing = round
        local sums, products = pool:map(add, items), pool:map(make(round), items, 50)
        for i = 1, 200 do
          assert.equal(i + round, sums[i])
          assert.equal(i * round, products[i])
        end
      end
    end)
  end)

  it("does not mix up closures of one prototype", function()
    tidemill.with(2, function(pool)
      local results = {}
      local function make(value) return function() return value end end
      for i = 1, 400 do results[i] = pool:submit(make(i % 3 == 0 and "s" .. i or i)) end
      for i = 1, 400 do assert.equal(i % 3 == 0 and "s" .. i or i, results[i]:get()) end
    end)
  end)

  it("captures globals: values, recursive functions, those of nested functions", function()
    script [[
      spec_factor, spec_table = 3, { 4 }
      function spec_fib(n) return n < 2 and n or spec_fib(n - 1) + spec_fib(n - 2) end
      function spec_even(n) if n == 0 then return true end return spec_odd(n - 1) end
      function spec_odd(n) if n == 0 then return false end return spec_even(n - 1) end
    ]]
    agree(script "return function(x) return x * spec_factor + spec_table[1] end", 5)
    agree(script "return spec_fib", 15)
    agree(script "return function(n) return spec_even(n), spec_odd(n) end", 9)
    agree(script "return function(x) return (function() return spec_factor + x end)() end", 1)
    agree(script "local f = spec_fib return function(n) return f(n) end", 12)
    agree(script "return function() return spec_missing, type(print), _VERSION end")
    script "spec_factor, spec_table, spec_fib, spec_even, spec_odd = nil"
  end)

  it("sees changes of globals between calls", function()
    local job = script "return function(x) return x + (spec_changing or 100) end"
    tidemill.with(2, function(pool)
      for round = 1, 20 do
        script(("spec_changing = %d"):format(round))
        assert.same({ 1 + round, 2 + round }, pool:map(job, { 1, 2 }))
      end
      script "spec_changing = nil"
      assert.same({ 101 }, pool:map(job, { 1 }))
      script [[
        real_floor = math.floor
        math.floor = function() return "mine" end
      ]]
      local call = script "return function() return math.floor(1) end"
      local ok, answer = pcall(pool.apply, pool, call)
      script "math.floor = real_floor real_floor = nil"
      assert.is_true(ok)
      assert.equal(1, answer) -- the worker's library is its own
    end)
  end)

  it("captures globals apart: two functions of one name do not see each other's", function()
    tidemill.with(1, function(pool)
      local job = script "return function() return spec_name() end"
      script "function spec_name() return 'first' end"
      assert.equal("first", pool:apply(job))
      script "function spec_name() return 'second' end"
      assert.equal("second", pool:apply(job))
      script "function spec_name() return 'first' end"
      assert.equal("first", pool:apply(job))
      script "spec_name = nil"
      assert.equal("nil", pool:apply(script "return function() return type(spec_name) end"))
    end)
  end)

  it("leaves what a job assigns to globals in its worker, for later jobs", function()
    tidemill.with(1, function(pool)
      pool:apply(script "return function() spec_kept = 42 end")
      assert.equal(42, pool:apply(script "return function() return spec_kept end"))
      assert.is_nil(rawget(_G, "spec_kept"))
    end)
  end)

  it("carries an environment of its own", function()
    local env = { x = 5, tostring = tostring }
    local f = setfenv(function() return tostring(x) .. type(env) end, env) -- luacheck: ignore
    local type = type
    f = setfenv(function() return x, type(print) end, env) -- luacheck: ignore
    agree(f)
    local inheriting = setmetatable({ y = 6 }, { __index = _G })
    agree(setfenv(function() return y, math.floor(1.5) end, inheriting)) -- luacheck: ignore
  end)

  it("keeps names and lines for tracebacks", function()
    tidemill.with(1, function(pool)
      local function fail() error "with a line" end
      local line = debug.getinfo(fail, "S").linedefined
      local err = raised("task", pool.apply, pool, function()
        fail()
        return 1
      end)
      local place = ("functions_spec.lua:%d: "):format(line)
      assert.is_truthy(err.message:find(place .. "with a line", 1, true))
      assert.is_truthy(err.traceback:find(("functions_spec.lua:%d:"):format(line), 1, true))
      assert.is_truthy(tostring(err):find("in the worker", 1, true))
    end)
  end)

  it("sees a global of an environment that inherits as it is at the call", function()
    tidemill.with(1, function(pool) -- the test runner's environment inherits by a function
      for value = 1, 300 do
        travel_scale = value -- luacheck: ignore
        local function double() return travel_scale * 2 end -- luacheck: ignore
        assert.equal(value * 2, pool:apply(double))
      end
    end)
  end)

  it("never shows compiled code a stale upvalue", function()
    tidemill.with(2, function(pool)
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
  end)

  it("may be a lambda, or the name of a function in a module", function()
    tidemill.with(2, function(pool)
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
  end)

  it("compiles a function once for all calls", function()
    tidemill.with(1, function(one)
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
      for i = 1, 200 do one:apply(busy, { i }) end
      local before = one:apply(compiled)
      for i = 1, 1000 do one:apply(busy, { i }) end
      assert.is_true(before > 0)
      assert.equal(before, one:apply(compiled))
    end)
  end)
end)
