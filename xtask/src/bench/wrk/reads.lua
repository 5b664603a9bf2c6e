-- Reads paths, each in its turn. Arguments: a bearer token; a file with a path a line.

local requests = {}
local at = 0

function init(args)
  for path in io.lines(args[2]) do
    requests[#requests + 1] = "GET " .. path .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
      .. "\r\nAuthorization: Bearer " .. args[1] .. "\r\nAccept: application/json\r\n\r\n"
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
