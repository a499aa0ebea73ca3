-- Fetch many pages at once, from a web server that a second pool runs. Some pages are missing, some
-- never come. Needs LuaSocket (Debian: lua-socket).

local http = require "socket.http"
local socket = require "socket"
local tidemill = require "tidemill"

-- ---- the server: answers after `latency` seconds, as if it were far away ----

local latency = 0.02

-- luacheck: globals listener
local function listen()
  listener = assert(socket.bind("127.0.0.1", 0)) -- any port that is free
end

local function answer(client, path)
  local number = path:match "^/page/(%d+)$"
  local status, body = "200 OK", ("page %s\n"):format(number)
  if not number then status, body = "404 Not Found", "" end
  client:send(("HTTP/1.0 %s\r\nContent-Length: %d\r\n\r\n%s"):format(status, #body, body))
  client:close()
end

local function serve()
  local queue, ignored = {}, {} -- the first in the queue is the first that is due
  while true do
    local pause = queue[1] and math.max(0, queue[1].due - socket.gettime())
    if #socket.select({ listener }, nil, pause) > 0 then
      local client = listener:accept()
      local path = (client:receive() or ""):match "^GET (%S+)" or "/"
      local list = path == "/never" and ignored or queue
      list[#list + 1] = { client = client, path = path, due = socket.gettime() + latency }
    end
    while queue[1] and queue[1].due <= socket.gettime() do
      local first = table.remove(queue, 1)
      answer(first.client, first.path)
    end
  end
end

-- ---- the client ----

--- The status of the page, and what is on it.
local function fetch(url)
  local body, status = http.request(url)
  return { status = status, body = body }
end

local function fetch_all(urls, workers)
  local from = tidemill.clock()
  local pages = tidemill.with(workers, function(pool)
    return pool:map(fetch, urls, { chunksize = 1, timeout = 0.5, errors = "collect" })
  end)
  return pages, tidemill.clock() - from
end

local function count_statuses(pages)
  local counts = {}
  for _, page in ipairs(pages) do
    local status = tidemill.is_error(page) and page.kind or page.status
    counts[status] = (counts[status] or 0) + 1
  end
  return counts
end

local servers = tidemill.pool { processes = 1, preload = { "socket" }, initializer = listen }
local _, port = servers:apply(function() return listener:getsockname() end)
local server = servers:submit(serve)

local paths = {}
for i = 1, 60 do
  paths[i] = i % 30 == 7 and "/never" or i % 12 == 0 and "/missing/" .. i or "/page/" .. i
end
local urls = {}
for i, path in ipairs(paths) do urls[i] = ("http://127.0.0.1:%d%s"):format(port, path) end

local pages, together = fetch_all(urls, 8)
local _, alone = fetch_all(urls, 1)
if server:ready() then server:get() end -- it should not have ended: that raises the reason
servers:terminate()

for i, page in ipairs(pages) do
  if page.status == 200 then assert(page.body == "page " .. i .. "\n") end
end
for _, i in ipairs { 1, 7, 12 } do
  print(("%-12s %s"):format(paths[i], pages[i].status or pages[i].kind))
end
local counts = count_statuses(pages)
print(("%d pages: %d found, %d missing, %d timed out"):format(#pages, counts[200], counts[404],
  counts.timeout))
print(("%.2f s with 8 workers, %.2f s one at a time: %.1f times as fast"):format(together, alone,
  alone / together))
