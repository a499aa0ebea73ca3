-- What shared objects are not, and what elements cannot be: told where the script stands, in words
-- that name the kind or the function.

local common = require "support.common"
local ffi = require "ffi"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

pcall(ffi.cdef, "struct spec_point { int x; double y; };")

local function make_all()
  return {
    t = tidemill, int = tidemill.value "int", double = tidemill.value "double",
    long = tidemill.value "int64_t", point = tidemill.value "struct spec_point",
    array = tidemill.array("int", { 1, 2, 3 }), points = tidemill.array("struct spec_point", 3),
    matrix = tidemill.matrix("int", 3, 4), dict = tidemill.dict(), queue = tidemill.queue(),
    lock = tidemill.lock(), rlock = tidemill.rlock(), semaphore = tidemill.semaphore(),
    event = tidemill.event(), condition = tidemill.condition(), barrier = tidemill.barrier(2),
  }
end

--- Run a statement that stands in a line of its own.
local function run(objects, statement)
  local chunk = assert(loadstring("local result\n" .. statement .. "\nreturn result", "=script"))
  return pcall(setfenv(chunk, objects))
end

local function raises(objects, statement, message)
  local ok, err = run(objects, statement)
  assert.is_false(ok, statement)
  assert.equal("script:2: " .. message, tostring(err):sub(1, #message + 10), statement)
end

local KINDS = {
  int = "value", point = "value", array = "array", matrix = "matrix", dict = "dict",
  queue = "queue", lock = "lock", rlock = "lock", semaphore = "semaphore", event = "event",
  condition = "condition", barrier = "barrier",
}

describe("a shared object", function()
  leaks.watch(after_each, assert)

  it("names its kind where a field is read or written that it has not", function()
    local objects = make_all()
    for name, kind in pairs(KINDS) do
      local message = ("tidemill.%s has no field 'foo': "):format(kind)
      raises(objects, ("result = %s.foo"):format(name), message)
      raises(objects, ("%s.foo = 1"):format(name), message)
      raises(objects, ("%s:foo()"):format(name), message)
    end
    raises(objects, "dict[1] = 2", "tidemill.dict has no field 1: ")
    raises(objects, "result = array['1']", "tidemill.array has no field '1': ")
  end)

  it("says what to use instead", function()
    local objects = make_all()
    raises(objects, "int.value = 1", "tidemill.value has no field 'value': use get() and set(); "
      .. "it has add, cas, get, lock, set, unlock, with")
    raises(objects, "result = dict['k']", "tidemill.dict has no field 'k': use get(key) and "
      .. "set(key, value); it has get, len, pairs, set, update")
    raises(objects, "result = queue:empty()", "tidemill.queue has no field 'empty': it has close, "
      .. "get, is_closed, join, put, size, task_done, try_get, try_put")
    raises(objects, "array.size = 1", "tidemill.array has no field 'size': elements are a[1] to "
      .. "a[#a]; it has copy, data, fill, lock, slice, totable, unlock, with")
    raises(objects, "result = barrier.n", "tidemill.barrier has no field 'n': read parties, "
      .. "n_waiting, broken and timeout; it has abort, reset, wait")
  end)

  it("names its kind where it is computed with, compared or called", function()
    local objects = make_all()
    local operators = {
      ["+"] = "%s + 1", ["-"] = "-%s", ["*"] = "2 * %s", ["/"] = "%s / 1", ["%"] = "%s %% 1",
      ["^"] = "%s ^ 1", [".."] = "'is ' .. %s", ["< or >"] = "%s > 1", ["<= or >="] = "%s <= 1",
    }
    for name, kind in pairs(KINDS) do
      for operator, expression in pairs(operators) do
        raises(objects, "result = " .. expression:format(name),
          ("tidemill.%s has no operator %s: "):format(kind, operator))
      end
    end
    raises(objects, "result = #lock", "tidemill.lock has no operator #: ")
    raises(objects, "result = int()", "tidemill.value has no operator (): ")
  end)

  it("keeps its handle", function()
    local objects = make_all()
    for name in pairs(KINDS) do
      raises(objects, ("%s.place = 1"):format(name), "attempt to write to constant location")
    end
    raises(objects, "array.count = 100", "attempt to write to constant location")
  end)

  it("refuses fields in machine code too", function()
    local value = tidemill.value "int"
    local function read(key) return value[key] end
    for i = 1, 300 do
      assert.is_false(pcall(read, "value"))
      assert.is_true(pcall(read, "get"), i)
    end
    local function loop(last)
      for i = 1, 1000 do
        value:add(1)
        if i == last then value.value = 1 end
      end
    end
    for _ = 1, 3 do
      loop(0)
      assert.is_false(pcall(loop, 900))
    end
    assert.equal(5700, value:get())
  end)

  it("has a length if it is a queue or a dict", function()
    local queue, dict = tidemill.queue(), tidemill.dict()
    assert.equal(0, #queue)
    queue:put "a"
    queue:put "b"
    dict:set("a", 1)
    assert.equal(2, #queue)
    assert.equal(1, #dict)
  end)
end)

describe("an element", function()
  leaks.watch(after_each, assert)

  it("is refused where C cannot convert it, naming function and place", function()
    local objects = make_all()
    local what = "cannot convert 'string' to 'int'"
    raises(objects, "result = t.value('int', 'x')", "tidemill.value: " .. what)
    raises(objects, "int:set 'x'", "value:set: " .. what)
    raises(objects, "int:set(nil)", "value:set: cannot convert 'nil' to 'int'")
    raises(objects, "int:add 'x'", "value:add: " .. what)
    raises(objects, "int:add()", "value:add: cannot convert 'nil' to 'int'")
    raises(objects, "int:cas('x', 1)", "value:cas: " .. what)
    raises(objects, "int:cas(1, 'x')", "value:cas: " .. what)
    raises(objects, "array[2] = 'x'", "array[2]: " .. what)
    raises(objects, "matrix[2] = 'x'", "matrix[2]: " .. what)
    raises(objects, "array:fill 'x'", "array:fill: " .. what)
    raises(objects, "array:copy { 1, 2, 'x' }", "array:copy: element 3: " .. what)
    raises(objects, "result = t.array('int', { 1, 'x' })", "tidemill.array: element 2: " .. what)
    raises(objects, "matrix:set(1, 1, 'x')", "matrix:set: " .. what)
    local number = "cannot convert 'number' to 'struct spec_point'"
    raises(objects, "points[1] = 5", "array[1]: " .. number)
    raises(objects, "points[1] = { x = 'a' }", "array[1]: " .. what)
    raises(objects, "point:set(5)", "value:set: " .. number)
    raises(objects, "result = t.value('struct spec_point', 5)", "tidemill.value: " .. number)
  end)

  it("is refused in machine code too", function()
    local array = tidemill.array("double", 1000)
    local function fill(source)
      for i = 1, 1000 do array[i] = source[i] end
    end
    local good, bad = common.numbers(1000), common.numbers(1000)
    bad[900] = "x"
    for _ = 1, 3 do
      fill(good)
      local ok, err = pcall(fill, bad)
      assert.is_false(ok)
      assert.matches("misuse_spec.lua:%d+: array%[900%]: cannot convert 'string' to 'double'", err)
    end
  end)

  it("is what C converts, 64-bit integers and booleans too", function()
    local bytes = tidemill.array("uint8_t", { 300, -1, 1.9, true })
    assert.same({ 44, 255, 1, 1 }, bytes:totable())
    local long, double = tidemill.array("int64_t", 500), tidemill.array("double", 500)
    for i = 1, 500 do long[i] = i end
    for i = 1, 500 do double[i] = long[i] end -- compiled
    for i = 1, 500 do assert.equal(i, double[i]) end
    assert.is_true(tidemill.array("bool", { true, false })[1])
    local value = tidemill.value "int64_t"
    value:set(2LL ^ 60)
    assert.is_true(value:add(1LL) == 2LL ^ 60 + 1)
    assert.is_true(value:cas(2LL ^ 60 + 1, 5))
    local points = tidemill.array("struct spec_point", 2)
    points[1] = { 1, 2.5 }
    points[2] = points[1]
    assert.equal(2.5, points[2].y)
  end)

  it("takes no fraction from add, if it is whole", function()
    local objects = make_all()
    local message = "value:add: n must be a whole number, got 0.5"
    raises(objects, "int:add(0.5)", message)
    raises(objects, "long:add(0.5)", message)
    raises(objects, "int:add(0 / 0)", "value:add: n must be a whole number, got ")
    assert.equal(0, objects.int:get())
    assert.equal(0.5, objects.double:add(0.5))
    local int, fraction = objects.int, 0.5
    for i = 1, 300 do
      if i == 300 then fraction = 0.25 end
      local ok = pcall(int.add, int, fraction * 2)
      assert.equal(i < 300, ok)
    end
    assert.equal(299, int:get())
  end)

  it("is named by numbers, and parts and locks take no less", function()
    local objects = make_all()
    raises(objects, "result = matrix:get(1)", "matrix:get: col must be a number, got nil")
    raises(objects, "result = matrix:get('x', 1)", "matrix:get: row must be a number, got 'x'")
    raises(objects, "matrix:set(1, nil, 1)", "matrix:set: col must be a number, got nil")
    raises(objects, "result = matrix:row(4)", "matrix:row: 4 is out of bounds")
    raises(objects, "result = array:slice 'x'", "array:slice: x to 3 is no part of 1 to 3")
    raises(objects, "array:copy 'x'", "array:copy: the source must be")
    raises(objects, "array:with(1)", "with: fn must be a function, got 1")
    raises(objects, "int:lock 'x'", "lock: timeout must be a number of seconds, got 'x'")
  end)
end)
