-- Hooks of metatables, and other code that runs while a value is encoded: whatever it does, there
-- is an error or the encoding of one state, and nothing is left of it.

local leaks = require "support.leaks"
local tidemill = require "tidemill"
local travel = require "support.travel"
local values = require "support.values"

local raised, there_and_back = travel.raised, travel.there_and_back

local function pass(value) return value end

local function hooked(encode, decode)
  return setmetatable({}, { __tidemill = { encode = encode, decode = decode or pass } })
end

describe("hooks", function()
  leaks.watch(after_each, assert)

  it("say how values travel, userdata too", function()
    local Handle = {}
    Handle.__tidemill = {
      encode = function(handle) return { handle.name } end,
      decode = function(plain) return setmetatable({ name = plain[1] .. "!" }, Handle) end,
    }
    local value = setmetatable({ name = "h", secret = coroutine.create(print) }, Handle)
    local back = there_and_back { value, value }
    assert.equal("h!", back[1].name)
    assert.equal(back[1], back[2])
    local proxy = newproxy(true)
    getmetatable(proxy).__tidemill = { encode = function() return 1 end,
      decode = function(n) return n + 1 end }
    assert.equal(2, (there_and_back(proxy)))
    local function is_nil(plain) return plain == nil and "nil" end
    assert.equal("nil", (there_and_back(hooked(function() end, is_nil))))
  end)

  it("may encode and use pools themselves", function()
    local shared = { 1, { 2 } }
    local nested = hooked(function() return tidemill.encode(shared, shared) end,
      function(s) return { tidemill.decode(s) } end)
    local back = there_and_back { shared, nested, shared, nested }
    assert.equal(back[1], back[3])
    assert.equal(back[2], back[4])
    assert.equal(back[2][1], back[2][2])
    assert.same({ { 1, { 2 } }, { 1, { 2 } } }, back[2])
    tidemill.with(1, function(pool)
      local inside = hooked(function() return pool:apply(pass, { 1 }) end)
      assert.equal("encode", select(2, pool:apply_async(pass, { inside }):try()).kind)
      assert.equal(7, pool:apply(pass, { 7 }))
    end)
  end)

  it("are called once for a value", function()
    local calls = 0
    local value = hooked(function()
      calls = calls + 1
      return 1
    end)
    tidemill.encode({ value, value }, value)
    assert.equal(1, calls)
  end)

  it("that misbehave are an error, and nothing is left of them", function()
    local forever
    forever = hooked(function(value) return { tidemill.encode { { value } } } end)
    local function endless() return 1 + endless() end
    local function like(value) return setmetatable({}, getmetatable(value)) end
    local function inward(value) return { { setmetatable({}, getmetatable(value)) } } end
    local bad = {
      raises = hooked(function() error "no" end),
      ["raises a table"] = hooked(function() error { "no" } end),
      ["raises nil"] = hooked(function() error() end),
      yields = hooked(function() coroutine.yield() end),
      ["recurses in Lua"] = hooked(endless),
      ["encodes itself"] = forever,
      ["returns itself anew"] = hooked(like),
      ["returns itself within"] = hooked(inward),
      ["returns userdata"] = hooked(function() return io.stdout end),
      ["returns a coroutine"] = hooked(function() return { { coroutine.create(pass) } } end),
    }
    local function registry_size()
      local count = 0
      for _ in pairs(debug.getregistry()) do count = count + 1 end
      return count
    end
    for name, value in pairs(bad) do
      local function attempt()
        local err = raised("encode", tidemill.encode, { 1, { a = value } }, pass)
        assert.is_truthy(err.message:find("^cannot send "), err.message)
        coroutine.wrap(function() raised("encode", tidemill.encode, value) end)()
      end
      attempt()
      collectgarbage()
      local entries, kept = registry_size(), collectgarbage "count"
      for _ = 1, 10 do attempt() end
      collectgarbage()
      assert.equal(entries, registry_size(), name)
      assert.is_true(collectgarbage "count" < kept + 100, name)
      assert.is_true(collectgarbage "isrunning", name)
      assert.same({ 1 }, (there_and_back { 1 }))
    end
    raised("encode", tidemill.encode, hooked(function(value) return setmetatable(value, nil) end))
    assert.is_truthy(raised("encode", tidemill.encode, { a = bad.raises }).message
      :find("field a: a value whose encode hook raised: ", 1, true))
  end)

  it("that misbehave when they decode are an error", function()
    local bytes
    local function again() return (tidemill.decode(bytes)) end
    rawset(_G, "spec_again", function() return (tidemill.decode(bytes)) end)
    for name, decode in pairs { raises = function() error "no" end, ["gives nil"] = function() end,
      yields = function() coroutine.yield() end, ["decodes itself"] = spec_again } do -- luacheck: ignore
      bytes = tidemill.encode(hooked(function() return 1 end, decode))
      assert.is_string(raised("decode", again).message, name)
      assert.equal(1, tidemill.decode(tidemill.encode(1)))
    end
    rawset(_G, "spec_again", nil)
  end)
end)

describe("what changes while it is encoded", function()
  leaks.watch(after_each, assert)

  it("travels as the last hook has left it", function()
    local list = {}
    for i = 1, 300 do list[i] = { i } end
    list[100] = hooked(function()
      for i = 1, 300 do if i ~= 100 then list[i] = -i end end
      list.new = "new"
      return 1
    end)
    local back = there_and_back(list)
    for i = 1, 300 do assert.equal(i == 100 and 1 or -i, back[i]) end
    assert.equal("new", back.new)
  end)

  it("travels with what came in meanwhile, hooks too", function()
    local list = {}
    list[1] = hooked(function()
      list[2] = list[2] or hooked(function() return 2 end)
      for i = 3, 400 do list[i] = { i } end
      return 1
    end)
    local ok, back = pcall(there_and_back, list)
    if ok then
      assert.equal(2, back[2])
      assert.equal(400, #back)
    else
      assert.equal("encode", back.kind)
    end
  end)

  it("is an error if a hook would have to be called too late", function()
    local first = {}
    first[2] = hooked(function()
      first[1] = first[1] or hooked(pass)
      return 1
    end)
    raised("encode", tidemill.encode, { first[1], first, hooked(function()
      first[0] = hooked(function() return 0 end)
      return 1
    end) })
  end)

  it("is an error or one state, whatever hooks change", function()
    local random = values.generator(travel.seed)
    local sent = 0
    for round = 1, 400 do
      local tables, result = {}, {}
      for i = 1, 5 do tables[i] = {} end
      local function change()
        for _ = 1, random(6) do
          local t, kind = tables[random(5)], random(5)
          local key = random(2) == 1 and random(20) or "k" .. random(20)
          if kind == 1 then t[key] = nil
          elseif kind == 2 then t[key] = tables[random(5)]
          elseif kind == 3 then t[random(#t + 1)] = random(1000)
          else t[key] = random(1000) end
        end
      end
      local class = { __tidemill = { encode = function()
        change()
        return result
      end, decode = function() return "hooked" end } }
      for i = 1, 5 do
        for k = 1, random(20) do tables[i][k] = random(4) == 1 and tables[random(5)] or k end
        for _ = 1, random(9) do tables[i]["k" .. random(30)] = random(1000) end
        tables[i][random(9)] = setmetatable({}, class)
      end
      local ok, bytes = pcall(tidemill.encode, tables)
      if ok then
        sent = sent + 1
        for i = 1, 5 do -- as they are now, the hooked ones replaced
          for key, value in pairs(tables[i]) do
            if getmetatable(value) == class then tables[i][key] = "hooked" end
          end
        end
        local same = values.compare(tables, (tidemill.decode(bytes)))
        assert.is_true(same == true,
          ("TIDEMILL_SPEC_SEED=%d, round %d: %s"):format(travel.seed, round, tostring(same)))
      else
        assert.equal("encode", bytes.kind)
      end
    end
    assert.is_true(sent > 20, sent .. " of 400 were sent")
  end)

  it("is one state when an environment's metamethod changes it", function()
    local first, last = { n = 0 }, { n = 0 }
    local environment = setmetatable({}, { __index = function(_, name)
      first.n, last.n = first.n + 1, last.n + 1
      tidemill.encode { {}, first, last, pass }
      return name
    end })
    local function f() return one, two, three end -- luacheck: ignore
    setfenv(f, environment)
    local back = there_and_back { first, f, last, first }
    assert.equal(3, back[1].n)
    assert.equal(3, back[3].n)
    assert.equal(back[1], back[4])
    assert.same({ "one", "two", "three" }, { back[2]() })
  end)

  it("is one state when finalizers change it", function()
    local first, last, runs, over = { n = 0 }, { n = 0 }, 0, false
    local function watch()
      local proxy = newproxy(true)
      getmetatable(proxy).__gc = function()
        first.n, last.n, runs = first.n + 1, last.n + 1, runs + 1
        tidemill.encode({ {}, last }, first, pass, { last })
        if not over then watch() end
      end
    end
    for _ = 1, 50 do watch() end
    local function captures() return math.floor, runs, spec_none end -- luacheck: ignore
    local deep = {}
    for _ = 1, 400 do deep = { deep } end
    collectgarbage("setpause", 1)
    for round = 1, 300 do
      local a, f, _, _, b, c = there_and_back(first, captures, deep, 5LL, last, first)
      assert.equal(a.n, b.n, "round " .. round)
      assert.equal(a, c)
      assert.is_function(f)
    end
    collectgarbage("setpause", 200)
    over = true
    assert.is_true(runs > 0)
  end)

  it("leaves the collector as it was", function()
    local value = { { 1 }, function() return math.floor(1) end, pass }
    collectgarbage "stop"
    tidemill.encode(value)
    assert.is_false(collectgarbage "isrunning")
    collectgarbage "restart"
    tidemill.encode(value)
    assert.is_true(collectgarbage "isrunning")
  end)
end)
