/** One kept HTTP connection that has at most one request under way. */
import type { Socket } from 'bun'
import { HttpFrames } from './http-frames.ts'

export class HttpLane {
  readonly #frames: HttpFrames
  #socket: Socket | undefined
  #unsent: Buffer | undefined
  #onAnswer: ((status: number) => void) | undefined

  private constructor() {
    this.#frames = new HttpFrames((status) => {
      const onAnswer = this.#onAnswer
      this.#onAnswer = undefined
      onAnswer?.(status)
    })
  }

  static async open(port: number, onClose: () => void): Promise<HttpLane> {
    const lane = new HttpLane()
    lane.#socket = await Bun.connect({
      hostname: '127.0.0.1',
      port,
      socket: {
        data: (_, bytes) => lane.#frames.push(bytes),
        drain: () => lane.#write(lane.#unsent),
        close: onClose,
      },
    })
    return lane
  }

  /** The bytes may not change before the answer came. */
  send(bytes: Buffer, onAnswer: (status: number) => void): void {
    this.#onAnswer = onAnswer
    this.#write(bytes)
  }

  #write(bytes: Buffer | undefined): void {
    if (bytes === undefined) return
    const written = this.#socket?.write(bytes) ?? 0
    this.#unsent = written < bytes.length ? bytes.subarray(Math.max(0, written)) : undefined
  }
}
