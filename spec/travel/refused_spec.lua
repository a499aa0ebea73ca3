-- What cannot travel, and how that is said.

local leaks = require "support.leaks"
local tidemill = require "tidemill"
local travel = require "support.travel"

local raised, script = travel.raised, travel.script

local function identity(...) return ... end

describe("what cannot travel", function()
  leaks.watch(after_each, assert)

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
        assert_says(err, "upvalue 'bad'", ("refused_spec.lua:%d>"):format(line + 2), what)
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
      assert_says(raised("encode", pool.apply, pool, identity, { pool }),
        "a pool does not travel")
      local function hold() return pool end
      assert_says(raised("encode", pool.map, pool, hold, { 1 }), "'pool'")
      raised("encode", pool.apply, pool, identity, { pool:submit(identity) })
    end)
  end)
end)
