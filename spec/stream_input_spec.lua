-- What a stream asks of its input: never more than its buffer ahead, however large or endless.

local common = require "support.common"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local numbers = common.numbers

local function identity(x) return x end

local function each_method(act)
  for _, method in ipairs { "imap", "imap_unordered" } do act(method) end
end

describe("the input of a stream", function()
  leaks.watch(after_each, assert)

  local function most_ahead(pool, method, options, count)
    local taken, most, asked = 0, 0, 0
    local function generate()
      if asked == count then return nil end
      asked = asked + 1
      most = math.max(most, asked - taken)
      return asked
    end
    for i, value in pool[method](pool, identity, generate, options) do
      assert.equal(i, value)
      taken = taken + 1
    end
    assert.equal(count, taken)
    return most
  end

  it("is never pulled further ahead than the buffer", function()
    for _, workers in ipairs { 1, 3 } do
      tidemill.with(workers, function(pool)
        each_method(function(method)
          for _, buffer in ipairs { 1, 2, 7, 64, 1000 } do
            for _, chunk in ipairs { false, 1, 3, 100 } do
              local options = { buffer = buffer, chunksize = chunk or nil }
              local most = most_ahead(pool, method, options, 1500)
              assert.is_true(most <= buffer, ("%s: %d ahead of %d in chunks of %s"):format(
                method, most, buffer, tostring(chunk)))
            end
          end
        end)
      end)
    end
  end)

  it("is pulled four chunks per worker ahead unless told otherwise", function()
    for _, workers in ipairs { 1, 2 } do
      tidemill.with(workers, function(pool)
        each_method(function(method)
          for _, chunk in ipairs { 1, 5, 50 } do
            local most = most_ahead(pool, method, chunk, 1500)
            assert.is_true(most <= 4 * chunk * workers, most)
            assert.is_true(most >= workers, most) -- or one would have nothing to do
          end
        end)
      end)
    end
  end)

  it("takes the buffer of the pool", function()
    tidemill.with({ processes = 2, buffer = 5 }, function(pool)
      each_method(function(method)
        assert.is_true(most_ahead(pool, method, nil, 200) <= 5)
        assert.is_true(most_ahead(pool, method, { buffer = 2 }, 200) <= 2)
      end)
    end)
  end)

  it("stands still while nobody takes", function()
    tidemill.with(2, function(pool)
      local asked = 0
      local function generate()
        asked = asked + 1
        return asked
      end
      local stream = pool:imap(identity, generate, { buffer = 10, chunksize = 2 })
      for i = 1, 30 do
        assert.equal(i, (stream:next()))
        pool:map(identity, numbers(50), 1)
        assert.is_true(asked <= i + 10)
      end
      stream:close()
    end)
  end)

  it("may be endless", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local count = 0
        local n = 0
        local function generate()
          n = n + 1
          return n
        end
        for i, value in pool[method](pool, identity, generate) do
          count = count + 1
          assert.equal(i, value)
          if count == 20000 then break end
        end
      end)
      assert.same(numbers(10), pool:map(identity, numbers(10)))
    end)
  end)

  it("may be larger than memory", function()
    tidemill.with(2, function(pool)
      collectgarbage()
      local before, most = processes.resident "self", 0
      local n = 0
      local function generate()
        n = n + 1
        if n <= 400 then return ("x"):rep(1e6) end
      end
      for _, text in pool:imap(identity, generate, { buffer = 8, chunksize = 1 }) do
        assert.equal(1e6, #text)
        most = math.max(most, processes.resident "self" - before)
      end
      assert.is_true(most < 200 * 1024, ("%d kB"):format(most)) -- of 800 MB that went through
    end)
  end)
end)
