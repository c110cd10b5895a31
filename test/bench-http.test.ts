/** The HTTP load generator's own parts: an answer miscounted, or a command sent twice, would be a figure nobody measured. */
import { describe, expect, test } from 'bun:test'
import { HttpFrames } from '../scripts/bench/http-frames.ts'
import { RequestTemplate } from '../scripts/bench/request-template.ts'

const ANSWERS = Buffer.from(
  [
    'HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\nContent-Length: 12\r\n\r\n{"a":"\r\n\r\n"}',
    'HTTP/1.1 304 Not Modified\r\netag: "x"\r\n\r\n',
    'HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n',
  ].join(''),
)

describe('answers are cut out of the bytes of a connection', () => {
  test('wherever reads begin and end', () => {
    for (let size = 1; size <= ANSWERS.length; size++) {
      const statuses: number[] = []
      const frames = new HttpFrames((status) => statuses.push(status))
      for (let at = 0; at < ANSWERS.length; at += size) frames.push(ANSWERS.subarray(at, at + size))
      expect(statuses).toEqual([202, 304, 503])
    }
  })

  test('and one whose end can not be told is a fault', () => {
    const frames = new HttpFrames(() => undefined)
    const chunked = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n'
    expect(() => frames.push(Buffer.from(chunked))).toThrow('does not tell its length')
  })
})

describe('a request is sent with other numbers each time', () => {
  test('one command, and many', () => {
    const single = RequestTemplate.single('line.add')
    expect(single.numbered(1).toString()).toContain('"ord-000000001"')
    expect(single.numbered(987_654_321).toString()).toContain('"ord-987654321"')

    const bulk = RequestTemplate.bulk('line.add', 3)
    expect(bulk.numbers).toBe(3)
    const [head = '', body = ''] = bulk.numbered(99_999_999).toString().split('\r\n\r\n')
    expect(head).toContain(`Content-Length: ${Buffer.byteLength(body)}`)
    const orders = body.split('\n').flatMap((line) => /ord-(\d+)/.exec(line)?.[1] ?? [])
    expect(orders).toEqual(['099999999', '100000000', '100000001'])
  })
})
