local common = require "support.common"
local crowd = require "support.crowd"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local raised = common.raised

--- All of a dictionary as a table; each key came once.
local function contents(dict)
  local found = {}
  for key, value in dict:pairs() do
    assert(found[key] == nil, "a key came twice")
    found[key] = value
  end
  return found
end

describe("tidemill.dict", function()
  leaks.watch(after_each, assert)

  it("has values by key", function()
    local dict = tidemill.dict()
    assert.is_nil(dict:get "x")
    dict:set("x", 1)
    dict:set("y", { 2, { 3 } })
    dict:set("x", "changed")
    assert.equal("changed", dict:get "x")
    assert.same({ 2, { 3 } }, dict:get "y")
    assert.equal(2, dict:len())
    dict:set("x", nil)
    dict:set("never", nil)
    assert.is_nil(dict:get "x")
    assert.equal(1, dict:len())
    assert.equal("tidemill.Dict (1 keys)", tostring(dict))
  end)

  it("tells keys apart by type and value", function()
    local dict = tidemill.dict()
    local long = ("k"):rep(5000)
    local all = { [1] = "number", ["1"] = "string", [true] = "yes", [false] = "no", [""] = "empty",
      ["a\0b"] = "zero", ["a\0"] = "short", [0.1] = "tenth", [-1] = "minus", [long] = "long",
      [1e300] = "huge", [math.huge] = "infinite" }
    for key, value in pairs(all) do dict:set(key, value) end
    assert.same(all, contents(dict))
    dict:set(0, "zero")
    assert.equal("zero", dict:get(-0))
    for _, key in ipairs { {}, 0 / 0, print } do
      local ok, problem = pcall(dict.set, dict, key, 1)
      assert.is_false(ok)
      assert.is_truthy(problem:find "key must be a string, number or boolean", problem)
    end
  end)

  it("copies values of any size, out and in", function()
    local dict, value = tidemill.dict(), { 1 }
    dict:set("t", value)
    value[1] = 2
    assert.same({ 1 }, dict:get "t")
    for _, size in ipairs { 0, 1, 20, 21, 22, 23, 100, 2047, 2049, 5000, 1e6, 3, 0 } do
      dict:set("s", ("x"):rep(size))
      assert.equal(size, #dict:get "s")
    end
    raised("encode", dict.set, dict, "s", coroutine.create(print))
    assert.equal("", dict:get "s")
  end)

  it("grows and shrinks", function()
    local dict, model = tidemill.dict(), {}
    for i = 1, 5000 do
      dict:set(i, i * 2)
      model[i] = i * 2
    end
    assert.equal(5000, dict:len())
    assert.same(model, contents(dict))
    for i = 1, 5000, 2 do dict:set(i, nil) end
    assert.equal(2500, dict:len())
    for i = 1, 5000 do assert.equal(i % 2 == 0 and i * 2, dict:get(i) or false) end
  end)

  it("updates with nobody else changing the key meanwhile", function()
    local dict = tidemill.dict()
    assert.equal(1, dict:update("n", function(n)
      assert.is_nil(n)
      assert.is_nil(dict:get "n")
      assert.equal(0, dict:len())
      return 1
    end))
    local rounds = 200
    crowd.run(3, function()
      for _ = 1, rounds do dict:update("n", function(n) return n + 1 end) end
    end)
    assert.equal(1 + 3 * rounds, dict:get "n")
    assert.is_nil(dict:update("n", function() return nil end))
    assert.equal(0, dict:len())
  end)

  it("keeps the old value when an update raises", function()
    local dict = tidemill.dict()
    dict:set("n", 7)
    local ok, err = pcall(dict.update, dict, "n", function() error { code = 1 } end)
    assert.is_false(ok)
    assert.same({ code = 1 }, err)
    raised("encode", dict.update, dict, "n", function() return coroutine.create(print) end)
    assert.equal(7, dict:get "n")
    assert.is_false((pcall(dict.update, dict, "new", function() error "no" end)))
    assert.equal(1, dict:len())
    assert.equal(8, dict:update("n", function(n) return n + 1 end))
  end)

  it("lets who updates change other keys, and not the same one twice", function()
    local dict = tidemill.dict()
    dict:update("a", function()
      dict:set("b", 2)
      dict:update("c", function() return 3 end)
      local ok, problem = pcall(dict.update, dict, "a", function() return 9 end)
      assert.is_false(ok)
      assert.is_truthy(problem:find "this process is updating that key already")
      return 1
    end)
    assert.same({ a = 1, b = 2, c = 3 }, contents(dict))
  end)

  it("keeps the old value when who updates is killed, and others go on", function()
    local dict, up = tidemill.dict(), tidemill.event()
    dict:set("n", 7)
    local process = tidemill.process(function()
      dict:update("n", function()
        up:set()
        while true do end
      end)
    end)
    process:start()
    assert.is_true(up:wait(60))
    assert.equal(7, dict:get "n")
    local waiting = crowd.start(1, function() dict:set("n", 8) return dict:get "n" end)
    process:kill()
    assert.same({ 8 }, crowd.finish(waiting))
    assert.equal(9, dict:update("n", function(n) return n + 1 end))
    process:join()
  end)

  it("makes who sets wait for who updates", function()
    local dict, up, gate = tidemill.dict(), tidemill.event(), tidemill.event()
    local process = crowd.start(1, function()
      return dict:update("n", function()
        up:set()
        gate:wait()
        return "updated"
      end)
    end)
    up:wait(60)
    local setter = crowd.start(1, function() dict:set("n", "set") end)
    assert.equal(0, #(tidemill.wait(setter, 0.05)))
    dict:set("other", 1) -- not this one
    gate:set()
    crowd.finish(setter)
    assert.same({ "updated" }, crowd.finish(process))
    assert.equal("set", dict:get "n")
  end)

  it("gives each key that stays once, while others come and go", function()
    local dict = tidemill.dict()
    for i = 1, 300 do dict:set(i, i) end
    local stop = tidemill.event()
    local churn = crowd.start(1, function()
      local i = 0
      repeat
        i = i % 3000 + 1
        dict:set(1000 + i, i)
        if i > 500 then dict:set(1000 + i - 500, nil) end
      until stop:is_set()
    end)
    for _ = 1, 5 do
      local found = contents(dict)
      for i = 1, 300 do assert.equal(i, found[i]) end
    end
    stop:set()
    crowd.finish(churn)
    for key in dict:pairs() do dict:set(key, nil) end
    assert.equal(0, dict:len())
  end)

  it("goes to pools and keeps what is shared in it alive", function()
    local dict = tidemill.dict()
    tidemill.with(2, function(pool)
      pool:each(function(i) dict:set(i, i * i) end, common.numbers(50))
    end)
    assert.equal(50, dict:len())
    crowd.run(1, function()
      local queue = tidemill.queue()
      queue:put "from one that has ended"
      dict:set("queue", queue)
    end)
    collectgarbage()
    assert.equal("from one that has ended", dict:get("queue"):get())
  end)

  it("refuses what it does not know", function()
    local dict = tidemill.dict()
    assert.has_error(function() dict.get("x") end, "dict:get: call it with a colon")
    assert.has_error(function() dict:update("x", 1) end,
      "dict:update: fn must be a function, got 1")
    assert.has_error(function() dict:get(("x"):rep(2 ^ 20)) end,
      "dict:get: key is too long: 1048576 bytes")
  end)

  it("has each key's old value or its new one when writers are killed at any instant", function()
    local dict = tidemill.dict()
    local function work(rounds)
      for i = 1, rounds do
        local key, size = i % 40, (i * 37) % 300
        dict:set(key, ("x"):rep(size) .. size)
        if i % 3 == 0 then dict:set(key, nil) end
        dict:update("sum", function(n) return (n or 0) + 1 end)
      end
      return true
    end
    for _ = 1, crowd.rounds do
      local steady = crowd.start(2, function(_, ...) return work(...) end, 300)
      for i = 1, 5 do crowd.kill_after(i * 0.003, work, 1e9) end
      assert.same({ true, true }, crowd.finish(steady))
      local count = 0
      for key, value in dict:pairs() do
        count = count + 1
        if key ~= "sum" then
          local size = tonumber(value:match "%d+$")
          assert.equal(size + #tostring(size), #value)
        end
      end
      assert.equal(count, dict:len())
      assert.is_true(dict:get "sum" >= 600)
    end
  end)
end)
