-- What travels, alone (encode, decode) and through a pool; what does not, and how that is said.

local ffi = require "ffi"
local leaks = require "support.leaks"
local point = require "support.point"
local tidemill = require "tidemill"
local values = require "support.values"

local seed = tonumber(os.getenv "TIDEMILL_SPEC_SEED") or os.time() % 1000000

local function identity(...) return ... end

local function there_and_back(...) return tidemill.decode(tidemill.encode(...)) end

local function raised(kind, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(tidemill.is_error(err), tostring(err))
  assert.equal(kind, err.kind)
  return err
end

local function assert_same(expected, value)
  local same = values.compare(expected, value)
  assert.is_true(same == true, same)
end

--- A script's chunk: its globals are _G's, not those of the test runner.
local function script(text) return assert(loadstring(text, "=job.lua"))() end

--- f(pool, carry) with each way to carry values.
local function each_way(f)
  tidemill.with(1, function(pool)
    f(there_and_back)
    f(function(...) return pool:apply(identity, { n = select("#", ...), ... }) end)
    f(function(value) return pool:map(identity, { value, value }, 2)[2] end)
  end)
end

describe("the codec", function()
  leaks.watch(after_each, assert)

  describe("for data", function()
    it("carries every scalar exactly", function()
      each_way(function(carry)
        for _, value in ipairs { true, false, 0, -0.0, 1, -1, 63, 64, -64, 127, 128, 255, 256,
          65535, 2 ^ 31, -2 ^ 31, 2 ^ 32, 2 ^ 53 - 1, 2 ^ 53, 2 ^ 53 + 2, -2 ^ 53, 2 ^ 63, -2 ^ 63,
          2 ^ 64, 0.1, -1.5, 5e-324, 1.7976931348623157e308, 1 / 0, -1 / 0, 0 / 0 } do
          assert_same(value, (carry(value)))
        end
        assert.is_nil((carry(nil)))
      end)
    end)

    it("carries strings of any bytes and length", function()
      local all = {}
      for i = 0, 255 do all[i + 1] = string.char(i) end
      all = table.concat(all)
      each_way(function(carry)
        for _, length in ipairs { 0, 1, 62, 63, 64, 65, 127, 128, 255, 256, 16383, 16384,
          1048577 } do
          local text = all:rep(math.ceil(length / 256)):sub(1, length)
          assert.is_true(text == carry(text))
        end
      end)
    end)

    it("carries many values, nils among them", function()
      local function count(...) return select("#", ...), ... end
      assert.same({ 4, nil, 1, nil, nil }, { count(there_and_back(nil, 1, nil, nil)) })
      assert.equal(0, (count(there_and_back())))
      local many = {}
      for i = 1, 200 do many[i] = i end
      assert.same(many, { there_and_back(unpack(many)) })
    end)

    it("carries arrays and hashes, holes and odd keys", function()
      each_way(function(carry)
        for _, t in ipairs { {}, { 1, 2, 3 }, { nil, 2 }, { 1, nil, nil, 4 }, { [0] = 0, 1 },
          { a = 1, nan = 2, NaN = 3, inf = 4, ["0x1"] = 5, ["1"] = 6 },
          { [1.5] = 1, [-1] = 2, [2 ^ 53] = 3, [1 / 0] = 4 }, { [true] = 1, [false] = 2 },
          { { { {} } } }, { [""] = "" }, { [2 ^ 31] = 1, [2 ^ 32 + 1] = 2 } } do
          assert_same(t, (carry(t)))
        end
      end)
    end)

    it("carries tables of every size around its bounds", function()
      for _, size in ipairs { 1, 2, 254, 255, 256, 257, 1000, 65536 } do
        local array, hash, mixed = {}, {}, {}
        for i = 1, size do
          array[i] = i
          hash["k" .. i] = i
          mixed[i], mixed["k" .. i] = i, {}
        end
        assert_same(array, there_and_back(array))
        assert_same(hash, there_and_back(hash))
        assert_same(mixed, there_and_back(mixed))
      end
    end)

    it("carries a hundred thousand levels", function()
      local deep = {}
      for i = 1, 100000 do deep = i % 2 == 0 and { deep } or { next = deep, level = i } end
      each_way(function(carry)
        local level, at = 0, carry(deep)
        while next(at) do
          at = at[1] or at.next
          level = level + 1
        end
        assert.equal(100000, level)
      end)
    end)

    it("keeps cycles", function()
      local ring = { name = "ring" }
      ring.next = { back = ring, { { ring } } }
      ring[1] = ring
      ring[ring] = ring
      each_way(function(carry)
        local back = carry(ring)
        assert.equal(back, back[1])
        assert.equal(back, back[back])
        assert.equal(back, back.next.back)
        assert.equal(back, back.next[1][1][1])
        assert.not_equal(ring, back)
      end)
    end)

    it("keeps what is shared shared, between values and arguments too", function()
      local shared = { 1 }
      local a, b = there_and_back({ shared }, { shared })
      assert.equal(a[1], b[1])
      tidemill.with(1, function(pool)
        assert.is_true(pool:apply(rawequal, { shared, shared }))
        assert.is_false(pool:apply(rawequal, { { 1 }, { 1 } }))
        local one, two = pool:apply(function(t) return { t }, t end, { shared })
        assert.equal(one[1], two)
      end)
    end)

    it("keeps a graph of forty levels as small as it is", function()
      local graph = {}
      for _ = 1, 40 do graph = { graph, graph } end
      assert.is_true(#tidemill.encode(graph) < 1000)
      each_way(function(carry)
        local at = carry(graph)
        for _ = 1, 40 do
          assert.equal(at[1], at[2])
          at = at[1]
        end
        assert.is_nil(next(at))
      end)
    end)

    it("carries tables as keys", function()
      local key = { "key" }
      each_way(function(carry)
        local back = carry { [key] = key, list = { key } }
        assert.equal(back.list[1], back[back.list[1]])
      end)
    end)

    it("carries 64-bit and complex numbers, and arrays of numbers", function()
      local int64 = ffi.typeof "int64_t"
      each_way(function(carry)
        for _, value in ipairs { 0LL, -1LL, 2 ^ 62 * 1LL, 18446744073709551615ULL, 1ULL } do
          local back = carry(value)
          assert.equal("cdata", type(back))
          assert.is_true(back == value)
          assert.equal(ffi.istype(int64, value), ffi.istype(int64, back))
        end
        local complex = carry(ffi.new("complex", 1.5, -2))
        assert.equal(1.5, complex.re)
        assert.equal(-2, complex.im)
        local vector = carry(ffi.new("double[?]", 3, 1, 2, 3))
        assert.equal(24, ffi.sizeof(vector))
        assert.equal(3, vector[2])
        local matrix = carry(ffi.new("int8_t[2][3]", { { 1, 2, 3 }, { 4, 5, 6 } }))
        assert.equal(6, matrix[1][2])
        assert.equal(6, ffi.sizeof(matrix))
      end)
    end)

    it("returns any random value unchanged", function()
      local random = values.generator(seed)
      tidemill.with(2, function(pool)
        for round = 1, 400 do
          local value = { values.random(random, 5) }
          local where = ("TIDEMILL_SPEC_SEED=%d, round %d: "):format(seed, round)
          local same = values.compare(value, (there_and_back(value)))
          assert.is_true(same == true, where .. tostring(same))
          same = values.compare(value, (pool:apply(identity, { value })))
          assert.is_true(same == true, where .. tostring(same))
        end
      end)
    end)

    it("is equal in every chunk size for random items", function()
      local random = values.generator(seed + 1)
      local items = {}
      for i = 1, 300 do items[i] = values.random(random, 3) end
      for _, workers in ipairs { 1, 2, 8 } do
        tidemill.with(workers, function(pool)
          for _, chunk in ipairs { 1, 7, 1000 } do
            local results = pool:map(identity, items, chunk)
            for i = 1, 300 do
              local same = values.compare(items[i], results[i])
              assert.is_true(same == true, ("TIDEMILL_SPEC_SEED=%d, item %d: %s"):format(seed, i,
                tostring(same)))
            end
          end
        end)
      end
    end)
  end)

  describe("for metatables", function()
    it("sends those of a module by name", function()
      assert.is_true(point.is_point((there_and_back(point.new(3, 4)))))
      tidemill.with(1, function(pool)
        assert.equal(5, pool:apply(function(p) return p:length() end, { point.new(3, 4) }))
        assert.is_true(pool:apply(point.is_point, { point.new(1, 2) }))
        local function add(a, b) return a + b end
        local sum = pool:apply(add, { point.new(1, 2), point.new(3, 4) })
        assert.is_true(point.is_point(sum))
        assert.equal(6, sum.y)
        local dynamic = pool:apply(identity, { setmetatable({}, point.dynamic) })
        assert.equal(point.dynamic, getmetatable(dynamic))
        assert.equal("dynamic x", dynamic.x)
      end)
    end)

    it("sends others as part of the value, classes and their parents", function()
      local Base = {}
      Base.__index = Base
      function Base:name() return "base " .. self.id end
      local Derived = setmetatable({}, { __index = Base })
      Derived.__index = Derived
      function Derived:double() return self.id * 2 end
      local object = setmetatable({ id = 21 }, Derived)
      each_way(function(carry)
        local back = carry(object)
        assert.equal("base 21", back:name())
        assert.equal(42, back:double())
      end)
      tidemill.with(1, function(pool)
        assert.equal(42, pool:apply(function(o) return o:double() end, { object }))
        local same = pool:apply(function(a, b) return getmetatable(a) == getmetatable(b) end,
          { object, setmetatable({ id = 1 }, Derived) })
        assert.is_true(same)
      end)
    end)

    it("runs no metamethods on the way", function()
      local function never() error "a metamethod was called" end
      local t = setmetatable({ 1, a = 2 }, { __index = never, __newindex = never, __len = never,
        __pairs = never, __metatable = "locked", __eq = never })
      each_way(function(carry)
        local back = carry(t)
        assert.equal(1, rawget(back, 1))
        assert.equal("locked", getmetatable(back))
        assert.has_error(function() return back.missing end)
      end)
    end)
  end)

  describe("for functions", function()
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
        return type(print), require "string" == string, ok, type(err), bit.bor(1, 6), jit.version,
          tonumber(ffi.new("int32_t", 5)), ffi.sizeof "double", text:upper():rep(2, "-")
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
        local place = ("codec_spec.lua:%d: "):format(line)
        assert.is_truthy(err.message:find(place .. "with a line", 1, true))
        assert.is_truthy(err.traceback:find(("codec_spec.lua:%d:"):format(line), 1, true))
        assert.is_truthy(tostring(err):find("in the worker", 1, true))
      end)
    end)
  end)

  describe("for what cannot travel", function()
    local unsendable = {
      { "coroutine", function() return coroutine.create(identity) end, "a coroutine" },
      { "file", function() return io.stdout end, "userdata" },
      { "proxy", function() return newproxy(true) end, "userdata" },
      { "cdata pointer", function() return require "ffi".new "int *" end, "a pointer" },
      { "light userdata", function()
        local cell = 1
        return debug.upvalueid(function() return cell end, 1)
      end, "a pointer" },
      { "iterator", function() return ("a"):gmatch "a" end, "a C function of no loaded module" },
    }

    local function assert_says(err, ...)
      for _, text in ipairs { ... } do
        assert.is_truthy(err.message:find(text, 1, true),
          ("%q is not in %q"):format(text, err.message))
      end
    end

    for _, case in ipairs(unsendable) do
      local name, new, what = unpack(case)

      it(("names the path of a %s in an argument"):format(name), function()
        tidemill.with(2, function(pool)
          assert_says(raised("encode", tidemill.encode, new()), what)
          assert_says(raised("encode", pool.apply, pool, identity, { 1, { a = { new() } } }),
            "argument", "a[1]", what)
          for _, chunk in ipairs { 1, 7, 1000 } do
            local items = { 1, "x", { a = { b = new() } } }
            local err = raised("encode", pool.map, pool, identity, items, chunk)
            assert.equal(3, err.index)
            assert_says(err, "item 3", "a.b", what)
          end
          local results = pool:map(identity, { 1, new(), 3 }, { errors = "collect", chunksize = 3 })
          assert.equal(1, results[1])
          assert.equal("encode", results[2].kind)
          assert.equal(3, results[3])
        end)
      end)

      it(("names the path of a %s in a function"):format(name), function()
        local bad, deep = new(), { list = { 0, new() } }
        local line = debug.getinfo(1, "l").currentline
        tidemill.with(1, function(pool)
          local err = raised("encode", pool.map, pool, function() return bad end, { 1 })
          assert_says(err, "upvalue 'bad'", ("codec_spec.lua:%d>"):format(line + 2), what)
          err = raised("encode", pool.map, pool, function() return deep end, { 1 })
          assert_says(err, "upvalue 'deep'", "list[2]", what)
          local function inner() return bad end
          err = raised("encode", pool.apply, pool, function() return inner() end)
          assert_says(err, "upvalue 'inner'", "upvalue 'bad'", what)
          rawset(_G, "spec_bad", bad)
          err = raised("encode", pool.apply, pool, script "return function() return spec_bad end")
          rawset(_G, "spec_bad", nil)
          assert_says(err, "global 'spec_bad'", "job.lua:1", what)
          assert.equal(1, pool:apply(identity, { 1 }))
        end)
      end)

      it(("names the path of a %s in a result"):format(name), function()
        tidemill.with(1, function(pool)
          local pid = pool:workers()[1]
          for _ = 1, 20 do
            local function work(f) return { a = { f() } } end
            local err = raised("encode", pool.apply, pool, work, { new })
            assert_says(err, "result", "a[1]", what)
            assert.equal(pid, err.pid)
          end
          for _, chunk in ipairs { 1, 7, 1000 } do
            local results = pool:map(function(x) return x == 5 and new() or x end,
              { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, { errors = "collect", chunksize = chunk })
            for i = 1, 9 do
              if i == 5 then
                assert.equal("encode", results[5].kind)
                assert.equal(5, results[5].index)
              else
                assert.equal(i, results[i])
              end
            end
          end
          assert.same({ pid }, pool:workers())
        end)
      end)

      it(("reports an error that is or holds a %s"):format(name), function()
        tidemill.with(1, function(pool)
          for _, wrap in ipairs { identity, function(value) return { inside = value } end } do
            local err = raised("task", pool.apply, pool, function() error(wrap(new())) end)
            assert.is_nil(err.value)
            assert.is_string(err.message)
            assert.is_string(err.traceback)
          end
          assert.equal(1, pool:apply(identity, { 1 }))
        end)
      end)
    end

    it("leaves out pools and results", function()
      tidemill.with(1, function(pool)
        assert_says(raised("encode", pool.apply, pool, identity, { pool }), "_core", "userdata")
        local function hold() return pool end
        assert_says(raised("encode", pool.map, pool, hold, { 1 }), "'pool'")
        raised("encode", pool.apply, pool, identity, { pool:submit(identity) })
      end)
    end)
  end)

  describe("for damaged messages", function()
    local function corpus()
      local ring = { 1, "two" }
      ring[3] = ring
      local deep = {}
      for _ = 1, 400 do deep = { deep } end
      local wide = {}
      for i = 1, 300 do wide[i], wide["k" .. i] = i / 2, i end
      local shared = {}
      return {
        tidemill.encode(),
        tidemill.encode(nil, true, false, 1, -1, 1e9, 0.5, "text", ("x"):rep(100)),
        tidemill.encode(ring), tidemill.encode(deep), tidemill.encode(wide),
        tidemill.encode({ shared, shared, { [shared] = 1 } }, shared),
        tidemill.encode(setmetatable({ 1 }, { __index = { 2 } }), point.new(1, 2)),
        tidemill.encode(1LL, 2ULL, ffi.new("complex", 1, 2), ffi.new "double[4]", math.floor, math),
      }
    end

    --- Decode in a worker, so that a crash is a failure that names its seed.
    local function survives(work, ...)
      local args = { corpus(), ... }
      tidemill.with(1, function(pool)
        local pid = pool:workers()[1]
        local decoded, refused = pool:apply(work, args)
        assert.is_true(refused > 0)
        assert.is_true(decoded >= 0)
        assert.equal(pid, pool:workers()[1])
      end)
    end

    it("refuses one cut short at any byte", function()
      survives(function(messages)
        local inner, decoded, refused = require "tidemill", 0, 0
        for m, message in ipairs(messages) do
          inner.decode(message)
          for size = 0, #message - 1 do
            local ok, err = pcall(inner.decode, message:sub(1, size))
            if ok or err.kind ~= "decode" then
              error(("message %d cut to %d: %s"):format(m, size, tostring(err)))
            end
            refused = refused + 1
          end
        end
        return decoded, refused
      end)
    end)

    it("survives flipped bits, changed bytes and what is left over", function()
      survives(function(messages, from)
        local inner, decoded, refused = require "tidemill", 0, 0
        local random = require "support.values".generator(from)
        local function attempt(m, text)
          local ok, err = pcall(inner.decode, text)
          if ok then
            decoded = decoded + 1
          elseif inner.is_error(err) and err.kind == "decode" then
            refused = refused + 1
          else
            error(("TIDEMILL_SPEC_SEED=%d, message %d: %s"):format(from, m, tostring(err)))
          end
        end
        for m, message in ipairs(messages) do
          attempt(m, message .. "\0")
          attempt(m, message .. message)
          for _ = 1, 1500 do
            local bytes = { message:byte(1, -1) }
            for _ = 1, random(3) do
              local at = random(#bytes)
              bytes[at] = random(2) == 1 and random(256) - 1
                or bit.bxor(bytes[at], 2 ^ (random(8) - 1))
            end
            local text = {}
            for i, byte in ipairs(bytes) do text[i] = string.char(byte) end
            attempt(m, table.concat(text))
          end
        end
        return decoded, refused
      end, seed)
    end)

    it("refuses any random bytes, and what is no string", function()
      survives(function(_, from)
        local inner, decoded, refused = require "tidemill", 0, 0
        local random = require "support.values".generator(from)
        for _ = 1, 5000 do
          local text = {}
          for i = 1, random(60) do text[i] = string.char(random(256) - 1) end
          local ok, err = pcall(inner.decode, table.concat(text))
          if not ok then assert(inner.is_error(err) and err.kind == "decode", tostring(err)) end
          if ok then decoded = decoded + 1 else refused = refused + 1 end
        end
        return decoded, refused
      end, seed)
      assert.has_error(function() tidemill.decode() end)
      assert.has_error(function() tidemill.decode {} end)
    end)
  end)
end)
