-- Many numbers that every process sees.

local commons = require "support.commons"
local common = require "support.common"
local ffi = require "ffi"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local it = commons.apart(it)

local NUMBERS = { "int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t", "uint32_t", "int64_t",
  "uint64_t", "float", "double" }

local function raises(pattern, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok, pattern)
  assert.matches(pattern, tostring(err))
  return err
end

describe("tidemill.array", function()
  leaks.watch(after_each, assert)
  commons.watch(after_each, assert)

  it("is zeros, or the elements of a table", function()
    for _, name in ipairs(NUMBERS) do
      local zeros, given = tidemill.array(name, 10), tidemill.array(name, { 1, 2, 3 })
      assert.equal(10, #zeros)
      assert.equal(3, #given)
      for i = 1, 10 do assert.is_true(zeros[i] == 0, name) end
      for i = 1, 3 do assert.is_true(given[i] == i, name) end
    end
    assert.equal(0, #tidemill.array("double", 0))
    assert.same({}, tidemill.array("double", {}):totable())
  end)

  it("is zeros also where its memory was something else's", function()
    for round = 1, 30 do
      for _, count in ipairs { 1, 7, 100, 5000, 33000, 40000, 100000 } do
        local array = tidemill.array("double", count)
        for i = 1, count do
          if array[i] ~= 0 then error(("round %d, %d of %d"):format(round, i, count)) end
        end
        array:fill(round)
      end
      collectgarbage()
    end
  end)

  it("shows tasks what the script wrote, and the script what tasks wrote", function()
    tidemill.with(2, function(pool)
      local sums = tidemill.array("double", 1000):fill(1)
      local total = pool:apply(function(a)
        for i = 2, #a do a[i] = a[i] + a[i - 1] end
        return a[#a]
      end, { sums })
      assert.equal(1000, total)
      for i = 1, 1000 do assert.equal(i, sums[i]) end
    end)
  end)

  it("takes results that workers write in place, as an upvalue", function()
    local squares = tidemill.array("int64_t", 5000)
    tidemill.with(4, function(pool)
      pool:each(function(i) squares[i] = i * i end, tidemill.range(1, 5000))
    end)
    for i = 1, 5000 do assert.is_true(squares[i] == i * i) end
  end)

  it("refuses an index out of bounds, where the script stands", function()
    local array = tidemill.array("double", 10)
    for _, index in ipairs { 0, 11, -1, 1.5, 1e300, -1e300, 0 / 0, 1 / 0, 2 ^ 32 + 1, 2 ^ 53, 10.5,
      0.5, 2 ^ 63, 2 ^ 64, 2 ^ 65 } do
      local err = raises("index .* is out of bounds: the array has 10 elements",
        function() return array[index] end)
      assert.matches("array_spec.lua", err)
      raises("index .* is out of bounds", function() array[index] = 1 end)
    end
    for i = 1, 10 do assert.equal(0, array[i]) end
    local bytes = tidemill.array("int8_t", 10000)
    for _, index in ipairs { 2 ^ 63, 2 ^ 64, 2 ^ 64 + 2 ^ 12, 1 - 2 ^ 64, 1.5 } do
      raises("index .* is out of bounds", function() return bytes[index] end)
      raises("index .* is out of bounds", function() bytes[index] = 1 end)
    end
    local empty = tidemill.array("double", 0)
    raises("the array has 0 elements", function() return empty[1] end)
  end)

  it("refuses the same in machine code", function()
    local array = tidemill.array("int", common.numbers(100))
    local function sum(from, to, step)
      local total = 0
      for i = from, to, step do total = total + array[i] end
      return total
    end
    for _ = 1, 100 do assert.equal(5050, sum(1, 100, 1)) end
    raises("index 101 is out of bounds", sum, 1, 101, 1)
    raises("index 0 is out of bounds", sum, 0, 100, 1)
    raises("index 1.5 is out of bounds", sum, 1, 100, 0.5)
    raises("index %-1 is out of bounds", sum, -1, 100, 1)
  end)

  it("has slices that are views, of any part", function()
    local array = tidemill.array("int", common.numbers(10))
    local part = array:slice(3, 6)
    assert.same({ 3, 4, 5, 6 }, part:totable())
    part[1] = 30
    assert.equal(30, array[3])
    assert.same({ 5, 6 }, part:slice(3):totable())
    assert.same({ 30 }, part:slice(1, 1):totable())
    assert.equal(0, #array:slice(5, 4))
    assert.equal(10, #array:slice())
    for _, ends in ipairs { { 0, 3 }, { 1, 11 }, { 5, 3 }, { 1.5, 3 }, { "x", 3 } } do
      raises("slice: .* is no part of 1 to 10", array.slice, array, ends[1], ends[2])
    end
  end)

  it("sends slices as slices", function()
    local array = tidemill.array("int", common.numbers(10))
    tidemill.with(2, function(pool)
      local back = pool:apply(function(part)
        part[2] = 40
        return part:slice(2, 3)
      end, { array:slice(3, 6) })
      assert.same({ 40, 5 }, back:totable())
      assert.equal(40, array[4])
      assert.is_true(back == array:slice(4, 5))
      assert.is_false(back == array:slice(4, 6))
    end)
  end)

  it("lives as long as a slice of it", function()
    local part = tidemill.array("int", common.numbers(1000)):slice(10, 12)
    commons.collect()
    assert.same({ 10, 11, 12 }, part:totable())
    assert.equal(1, select(2, commons.count()))
  end)

  it("copies, fills, and becomes a table", function()
    local array = tidemill.array("double", { 1, 2, 3 })
    local copy = array:copy()
    copy[1] = 10
    assert.same({ 1, 2, 3 }, array:totable())
    assert.same({ 10, 2, 3 }, copy:totable())
    assert.same({ 4, 5, 6 }, array:copy({ 4, 5, 6 }):totable())
    assert.same({ 10, 2, 3 }, array:copy(copy):totable())
    assert.same({ 7, 7, 7 }, array:fill(7):totable())
    local long = tidemill.array("int", common.numbers(6))
    long:slice(2, 6):copy(long:slice(1, 5)) -- they overlap
    assert.same({ 1, 1, 2, 3, 4, 5 }, long:totable())
    raises("the source has 2 elements, the array 3", array.copy, array, { 1, 2 })
    raises("must be a table or an array of the same type", array.copy, array, long)
    raises("must be a table or an array of the same type", array.copy, array, "text")
  end)

  it("gives its memory as a C pointer", function()
    local array = tidemill.array("float", { 1, 2, 3 })
    local data = array:data()
    assert.is_true(ffi.istype("float *", data))
    assert.equal(3, data[2])
    data[0] = 9
    assert.equal(9, array[1])
    assert.equal(0, tonumber(ffi.cast("uintptr_t", data)) % 64)
  end)

  it("holds structs", function()
    pcall(ffi.cdef, "struct spec_point { int x; double y; };")
    local points = tidemill.array("struct spec_point", 10)
    points[3] = { 1, 2.5 }
    points[4].x = 7
    local function declare() require "ffi".cdef "struct spec_point { int x; double y; };" end
    tidemill.with({ processes = 2, initializer = declare }, function(pool)
      local x, y = pool:apply(function(p)
        p[5] = { 5, 5.5 }
        return p[4].x, p[3].y
      end, { points })
      assert.equal(7, x)
      assert.equal(2.5, y)
    end)
    assert.equal(5.5, points[5].y)
    local copies = points:totable()
    points[5].y = 0
    assert.equal(5.5, copies[5].y)
  end)

  it("can be the items of any method", function()
    local array = tidemill.array("double", common.numbers(1000))
    local whole = tidemill.array("int64_t", { 1, 2, 3 })
    tidemill.with(2, function(pool)
      local double = function(x) return x * 2 end
      local doubled = pool:map(double, array)
      for i = 1, 1000 do assert.equal(2 * i, doubled[i]) end
      local count = 0
      for i, x in pool:imap(double, array, { buffer = 50 }) do
        assert.equal(2 * i, x)
        count = count + 1
      end
      assert.equal(1000, count)
      assert.equal(500500, pool:mapreduce("x -> x", "a, b -> a + b", array))
      assert.equal(1000, pool:each(double, array))
      assert.same({ 999, 1000 }, pool:filter("x -> x > 998", array))
      assert.same({ 2, 3 }, pool:map("x -> x", array:slice(2, 3)))
      assert.is_true(pool:map(function(x) return x + 1 end, whole)[3] == 4)
      assert.same({}, pool:map(double, tidemill.array("double", 0)))
      local err = common.raised("task", pool.map, pool, function(x)
        if x == 600 then error("no") end
        return x
      end, array)
      assert.equal(600, err.index)
      assert.equal(600, err.item)
    end)
  end)

  it("runs a function under its lock", function()
    local array = tidemill.array("double", 2)
    tidemill.with(4, function(pool)
      pool:each(function()
        array:with(function(a)
          a[1] = a[1] + 1
          a[2] = a[2] - 1
        end)
      end, tidemill.range(1, 2000), 10)
    end)
    assert.same({ 2000, -2000 }, array:totable())
  end)

  it("refuses what it cannot be", function()
    raises("tidemill.array: ctype must be", tidemill.array)
    raises("tidemill.array: length must be a whole number from 0, got nil", tidemill.array, "int")
    raises("tidemill.array: length must be .*, got %-1", tidemill.array, "int", -1)
    raises("tidemill.array: length must be .*, got 1.5", tidemill.array, "int", 1.5)
    raises("tidemill.array: length must be .*, got nan", tidemill.array, "int", 0 / 0)
    raises("tidemill.array: .*cannot be shared", tidemill.array, "char *", 10)
    local err = common.raised("share", tidemill.array, "double", 2 ^ 50)
    assert.matches("no shared memory left", err.message)
    common.raised("share", tidemill.array, "double", 2 ^ 53)
  end)

  it("gives its memory back", function()
    local before = commons.count()
    local array = tidemill.array("double", 8 * 2 ^ 20):fill(1)
    assert.is_true(commons.count() >= before + 64 * 2 ^ 20)
    assert.equal(1, array[1])
    array = nil -- luacheck: ignore
    assert.is_truthy(commons.falls_to(0, before + 2 ^ 20))
  end)

  it("is collected soon when many are made, however small their values are", function()
    collectgarbage "stop"
    for _ = 1, 40 do tidemill.array("double", 2 ^ 21):fill(1) end -- 640 MiB
    local taken = commons.count()
    collectgarbage "restart"
    assert.is_true(taken < 200 * 2 ^ 20, tostring(taken))
  end)
end)

describe("tidemill.matrix", function()
  leaks.watch(after_each, assert)
  commons.watch(after_each, assert)

  it("has rows and columns, one row after the other", function()
    local matrix = tidemill.matrix("double", 3, 4)
    assert.equal(3, matrix.rows)
    assert.equal(4, matrix.cols)
    assert.equal(12, #matrix)
    for r = 1, 3 do
      for c = 1, 4 do matrix:set(r, c, 10 * r + c) end
    end
    assert.equal(23, matrix:get(2, 3))
    assert.equal(23, matrix[7])
    assert.same({ 21, 22, 23, 24 }, matrix:row(2):totable())
    matrix:row(3)[4] = 0
    assert.equal(0, matrix:get(3, 4))
  end)

  it("tells its rows and columns, and a row its length", function()
    local matrix = tidemill.matrix("double", 3, 4)
    assert.equal("tidemill.matrix: 3 x 4 double", tostring(matrix))
    assert.equal("tidemill.array: 4 x double", tostring(matrix:row(1)))
  end)

  it("refuses places out of bounds", function()
    local matrix = tidemill.matrix("int", 3, 4)
    for _, place in ipairs { { 0, 1 }, { 4, 1 }, { 1, 0 }, { 1, 5 }, { 1.5, 1 }, { 1, 1.5 } } do
      local err = raises("is out of bounds: the matrix has 3 rows and 4 columns",
        function() return (matrix:get(place[1], place[2])) end)
      assert.matches("array_spec.lua", err)
      raises("is out of bounds", function() matrix:set(place[1], place[2], 1) end)
    end
    raises("row: 4 is out of bounds: the matrix has 3 rows", matrix.row, matrix, 4)
    raises("tidemill.matrix: rows must be", tidemill.matrix, "int", -1, 4)
    raises("tidemill.matrix: cols must be", tidemill.matrix, "int", 1)
  end)

  it("travels as a matrix, and its rows as rows", function()
    local matrix = tidemill.matrix("double", 30, 20)
    tidemill.with(2, function(pool)
      local rows, cols, row = pool:apply(function(m)
        m:set(2, 3, 5)
        return m.rows, m.cols, m:row(2)
      end, { matrix })
      assert.equal(30, rows)
      assert.equal(20, cols)
      assert.equal(5, row[3])
      assert.is_true(row == matrix:row(2))
    end)
  end)

  it("gives its rows as items, to be written in place", function()
    local matrix = tidemill.matrix("double", 50, 20)
    tidemill.with(2, function(pool)
      pool:each(function(row)
        for c = 1, #row do row[c] = c end
      end, matrix)
      local sums = pool:map(function(row)
        local sum = 0
        for c = 1, #row do sum = sum + row[c] end
        return sum
      end, matrix)
      assert.equal(50, #sums)
      for r = 1, 50 do assert.equal(210, sums[r]) end
    end)
  end)

  it("copies as a matrix", function()
    local matrix = tidemill.matrix("int", 2, 2):fill(3)
    local copy = matrix:copy()
    copy:set(1, 1, 5)
    assert.equal(3, matrix:get(1, 1))
    assert.same({ 5, 3, 3, 3 }, copy:totable())
    assert.equal(2, copy.rows)
  end)
end)
