/**
 * HEAD is GET without the body (RFC 9110, 9.3.2): the app answers a GET, and the server sends the headers of that answer, its
 * Content-Length too. Hono drops the body first, and then a length of 0 is told, which is no GET's.
 */
import type { HttpEnv } from './http-env.ts'
import type { HttpApp } from './server.ts'

export async function headAnswer(
  app: HttpApp,
  request: Request,
  server: HttpEnv['Bindings'],
): Promise<Response> {
  const { url, headers, signal } = request
  const get = new Request(url, { headers, signal })
  const timeout = (_: Request, seconds: number): void => server.timeout?.(request, seconds)
  const response = await app.fetch(get, { timeout })
  if (response.headers.get('content-type')?.startsWith('text/event-stream') !== true) return response
  // A stream that nobody reads must not stay open.
  await response.body?.cancel()
  return new Response(null, { status: response.status, headers: response.headers })
}
