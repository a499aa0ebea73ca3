-- What of the host's open files reaches a worker: nothing, however the worker came to be.

local ffi = require "ffi"
local leaks = require "support.leaks"
local shell = require "support.shell"
local tidemill = require "tidemill"

ffi.cdef [[
  int socketpair(int domain, int type, int protocol, int ends[2]);
  int pipe(int ends[2]);
  int close(int fd);
  int dup2(int from, int to);
]]

local AF_UNIX, SOCK_STREAM = 1, 1

--- In a worker: what each descriptor from 3 on stands for, and what stdin is.
local function look()
  local C = require "ffi"
  pcall(C.cdef, "long readlink(const char *path, char *buffer, unsigned long size);")
  local buffer = C.new("char[512]")
  local function target(fd)
    local length = C.C.readlink(("/proc/self/fd/%d"):format(fd), buffer, 512)
    return length >= 0 and C.string(buffer, length) or nil
  end
  local found = {}
  for fd = 3, 1023 do found[#found + 1] = target(fd) end
  return found, target(0)
end

local OWN = { "anon_inode:[eventfd]", "/memfd:tidemill-commons (deleted)" }

--- Its event and what its tree shares are all that a worker has besides the three.
local function assert_bare(found, stdin)
  assert.same(OWN, found)
  assert.equal("/dev/null", stdin)
end

describe("a worker", function()
  local files, ends

  -- None of them is close-on-exec, and one has a high number.
  before_each(function()
    files = { assert(io.open("/etc/passwd")), assert(io.popen("cat >/dev/null", "w")) }
    ends = { ffi.new("int[2]"), ffi.new("int[2]") }
    assert.equal(0, ffi.C.socketpair(AF_UNIX, SOCK_STREAM, 0, ends[1]))
    assert.equal(0, ffi.C.pipe(ends[2]))
    assert.equal(900, ffi.C.dup2(ends[2][0], 900))
  end)
  local function let_go()
    for _, file in ipairs(files) do file:close() end
    for _, pair in ipairs(ends) do
      ffi.C.close(pair[0])
      ffi.C.close(pair[1])
    end
    ffi.C.close(900)
  end
  leaks.watch(function(prove)
    after_each(function()
      let_go()
      prove()
    end)
  end, assert)

  for name, options in pairs {
    ["of a pool"] = { processes = 2 },
    ["that inherits"] = { processes = 2, inherit = true },
  } do
    it(name .. " has none of the host's descriptors", function()
      tidemill.with(options, function(pool)
        assert_bare(pool:apply(look))
        pcall(pool.apply, pool, function() os.exit(3) end)
        assert_bare(pool:apply(look)) -- maybe a replacement
      end)
    end)

    it(name .. " hands none of its own to workers of its pools", function()
      tidemill.with(options, function(pool)
        assert_bare(pool:apply(function(look_again)
          local mine = assert(io.open("/etc/passwd"))
          local found, stdin = require "tidemill".with(1, function(inner)
            return inner:apply(look_again)
          end)
          mine:close()
          return found, stdin
        end, { look }))
      end)
    end)
  end

  it("has none that was opened since the supervisor was", function()
    tidemill.with(1, function(pool)
      local later = assert(io.open("/etc/passwd"))
      tidemill.with(1, function(second)
        assert_bare(pool:apply(look))
        assert_bare(second:apply(look))
      end)
      later:close()
    end)
  end)
end)

-- In a process of its own: a spawned supervisor stays as long as its host.
describe("a worker of an executed supervisor", function()
  it("has none of the host's descriptors", function()
    local out, err = shell.run("TIDEMILL SCRIPT 5</etc/passwd 6>/dev/null", [[
      local tidemill = require "tidemill"
      local opened = assert(io.open("/etc/passwd"))
      tidemill.with({ processes = 2, start_method = "spawn" }, function(pool)
        print(pool:apply(function()
          local list = {}
          local C = require "ffi"
          C.cdef "long readlink(const char *path, char *buffer, unsigned long size);"
          local buffer = C.new("char[512]")
          for fd = 3, 1023 do
            local length = C.C.readlink(("/proc/self/fd/%d"):format(fd), buffer, 512)
            if length >= 0 then list[#list + 1] = C.string(buffer, length) end
          end
          return table.concat(list, " ")
        end))
      end)
      opened:close()
    ]])
    assert.equal("", err)
    assert.equal(table.concat(OWN, " ") .. "\n", out)
  end)
end)
