-- Bytes that are damaged, or of another version.

local ffi = require "ffi"
local leaks = require "support.leaks"
local point = require "support.point"
local tidemill = require "tidemill"
local travel = require "support.travel"

local raised, seed = travel.raised, travel.seed

local VERSION = tidemill.encode():sub(1, 1)

describe("damaged bytes", function()
  leaks.watch(after_each, assert)

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
      tidemill.encode(setmetatable({ 1 }, { __mode = "k" }), { { x = 1 }, { x = 2 }, { x = 3 },
        { x = 4 }, { x = 5 } }, { 1, 2, 3, 4, 5, 6, 7, 8, 9 }),
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
        assert(not pcall(inner.decode, message .. "\0"))
      end
      return decoded, refused
    end)
  end)

  it("survives each bit flipped", function()
    survives(function(messages)
      local inner, decoded, refused = require "tidemill", 0, 0
      for m, message in ipairs(messages) do
        for at = 1, math.min(#message, 300) do
          for digit = 0, 7 do
            local flipped = string.char(bit.bxor(message:byte(at), 2 ^ digit))
            local ok, err = pcall(inner.decode, message:sub(1, at - 1) .. flipped
              .. message:sub(at + 1))
            if not ok and err.kind ~= "decode" then
              error(("message %d, byte %d, bit %d: %s"):format(m, at, digit, tostring(err)))
            end
            decoded, refused = decoded + (ok and 1 or 0), refused + (ok and 0 or 1)
          end
        end
      end
      return decoded, refused
    end)
  end)

  it("survives several changes at once, and what is left over", function()
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
    survives(function(_, from, version)
      local inner, decoded, refused = require "tidemill", 0, 0
      local random = require "support.values".generator(from)
      for _ = 1, 5000 do
        local text = {}
        for i = 1, random(60) do text[i] = string.char(random(256) - 1) end
        local ok, err = pcall(inner.decode, (random(9) > 1 and version or "") .. table.concat(text))
        if not ok then assert(inner.is_error(err) and err.kind == "decode", tostring(err)) end
        if ok then decoded = decoded + 1 else refused = refused + 1 end
      end
      return decoded, refused
    end, seed, VERSION)
    assert.has_error(function() tidemill.decode() end)
    assert.has_error(function() tidemill.decode {} end)
  end)

  it("makes nothing of what the bytes cannot fill", function()
    local function u32(n)
      return string.char(n % 256, math.floor(n / 256) % 256, math.floor(n / 65536) % 256, 0)
    end
    local nested = {}
    for left = 60000, 0, -9 do -- tables of as many pairs as there are bytes for, in each other
      nested[#nested + 1] = "\9" .. u32(0) .. u32(math.floor(left / 2))
    end
    local function cdata(type, bytes)
      return "\15" .. string.char(#type) .. type .. string.char(#bytes) .. bytes
    end
    for _, text in ipairs { table.concat(nested), cdata("double [100000000]", "x"),
      cdata("double [?][10000000]", ("x"):rep(80)), "\9" .. u32(2 ^ 24 - 1) .. u32(0) } do
      collectgarbage()
      collectgarbage "stop"
      local before = collectgarbage "count"
      local err = raised("decode", tidemill.decode, VERSION .. "\0" .. text)
      local used = (collectgarbage "count" - before) * 1024
      collectgarbage "restart"
      assert.is_true(used < 100 * #text + 500000, err.message .. ": " .. used)
    end
  end)

  it("refuses those of another version, and names both", function()
    local bytes = tidemill.encode(1)
    for _, version in ipairs { 0, 2, 255 } do
      local err = raised("decode", tidemill.decode, string.char(version) .. bytes:sub(2))
      assert.is_truthy(err.message:find(("version %d "):format(version), 1, true), err.message)
      assert.is_truthy(err.message:find(("version %d$"):format(VERSION:byte())), err.message)
    end
    assert.equal(1, tidemill.decode(bytes))
  end)

  it("gives no function that was changed to the loader", function()
    local bytes = tidemill.encode(function(a) return a + 1 end)
    local at = assert(bytes:find("\27LJ", 1, true))
    for offset = at, #bytes - 4 do
      local changed = bytes:sub(1, offset - 1) .. string.char((bytes:byte(offset) + 1) % 256)
        .. bytes:sub(offset + 1)
      assert.is_false((pcall(tidemill.decode, changed)))
    end
  end)
end)
