-- Plain data and metatables, alone (encode, decode) and through a pool.

local ffi = require "ffi"
local leaks = require "support.leaks"
local point = require "support.point"
local tidemill = require "tidemill"
local travel = require "support.travel"

local assert_same, each_way, there_and_back = travel.assert_same, travel.each_way,
  travel.there_and_back

local function identity(...) return ... end

describe("data", function()
  leaks.watch(after_each, assert)

  it("carries every scalar exactly", function()
    each_way(function(carry)
      for _, value in ipairs { true, false, 0, -0.0, 1, -1, 63, 64, -64, 127, 128, 255, 256,
        32767, 32768, -32768, -32769, 65535, 2 ^ 31, -2 ^ 31, 2 ^ 32, 2 ^ 53 - 1, 2 ^ 53,
        2 ^ 53 + 2, -2 ^ 53, 2 ^ 63, -2 ^ 63, 2 ^ 64, 0.1, -1.5, 5e-324,
        1.7976931348623157e308, 1 / 0, -1 / 0, 0 / 0 } do
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

  it("carries megabytes, several in a message", function()
    local parts, numbers = {}, {}
    for i = 1, 1000 do parts[i] = ("%d,"):format(i) end
    for i = 1, 2 ^ 17 do numbers[i] = i + 0.25 end
    local text = table.concat(parts):rep(400)
    each_way(function(carry)
      local back = carry { text, numbers, text .. text, "end" }
      assert.is_true(back[1] == text and back[3] == text .. text and back[4] == "end")
      assert_same(numbers, back[2])
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
        { [1.5] = 1, [-1] = 2, [2 ^ 53] = 3, [1 / 0] = 4, [2 ^ 40] = 5 },
        { [true] = 1, [false] = 2 }, { { { {} } } }, { [""] = "" },
        { [2 ^ 31] = 1, [2 ^ 32 + 1] = 2 } } do
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

  it("carries 64-bit and complex numbers, arrays of numbers, and structs", function()
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
      local rows = carry(ffi.new("int16_t[?][2]", 3, { { 1, 2 }, { 3, 4 }, { 5, 6 } }))
      assert.equal(12, ffi.sizeof(rows))
      assert.equal(6, rows[2][1])
      local pair = there_and_back(ffi.new("struct values_pair", 1.5, 3)) -- see values.lua
      assert.same({ 1.5, 3 }, { pair.x, pair.y })
    end)
  end)
end)

describe("metatables", function()
  leaks.watch(after_each, assert)

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
      local class = getmetatable(back)
      assert.equal(class, class.__index)
      assert.not_equal(Derived, class)
    end)
    tidemill.with(1, function(pool)
      assert.equal(42, pool:apply(function(o) return o:double() end, { object }))
      local same = pool:apply(function(a, b) return getmetatable(a) == getmetatable(b) end,
        { object, setmetatable({ id = 1 }, Derived) })
      assert.is_true(same)
    end)
  end)

  it("sends those that are registered by name", function()
    local Vector = { __index = { length = function(v) return math.sqrt(v.x ^ 2 + v.y ^ 2) end } }
    tidemill.register("travel.Vector", Vector)
    tidemill.with(1, function(pool)
      local v = setmetatable({ x = 3, y = 4 }, Vector)
      assert.equal(5, pool:apply("v -> v:length()", { v }))
      assert.equal(Vector, getmetatable(pool:apply("v -> v", { v })))
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
