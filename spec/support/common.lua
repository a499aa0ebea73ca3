--- What most specs of pools need.

local assert = require "luassert"
local tidemill = require "tidemill"

local common = {}

function common.identity(x) return x end

--- The list 1, 2, ... count.
function common.numbers(count)
  local items = {}
  for i = 1, count do items[i] = i end
  return items
end

--- `f` raises an error object of this kind, which is returned.
function common.raised(kind, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(tidemill.is_error(err), tostring(err))
  assert.equal(kind, err.kind)
  return err
end

--- The pool still does what it should.
function common.assert_alive(pool)
  assert.same(common.numbers(300), pool:map(common.identity, common.numbers(300), 7))
end

return common
