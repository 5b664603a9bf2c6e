-- Creates links. Arguments: a bearer token; links per call, 0: without a batch.

local head, batch
local number = 0

local function link(of)
  return string.format('{"longUrl":"https://example.com/created/%012d?utm_source=newsletter"}', of)
end

local function call(path, body)
  return "POST " .. path .. " HTTP/1.1\r\n" .. head .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
end

function init(args)
  head = "Host: " .. wrk.headers["Host"] .. "\r\nAuthorization: Bearer " .. args[1]
    .. "\r\nContent-Type: application/json\r\n"
  local size = tonumber(args[2])
  if size > 0 then
    local links = {}
    for index = 1, size do
      links[index] = link(index)
    end
    batch = call("/api/v1/links/batch", '{"links":[' .. table.concat(links, ",") .. "]}")
  end
end

function request()
  if batch then
    return batch
  end
  number = number + 1
  return call("/api/v1/links", link(number))
end
