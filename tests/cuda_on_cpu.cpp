// Runs a CUDA kernel on the processor. Each thread of a block is a fiber; they take turns, and a
// turn ends where a thread waits for the others. Compiled with the kernels and -DREAL=double or
// float; nothing here knows what the kernels compute.

#include <ucontext.h>

#include <vector>

#define __global__
#define __shared__ static

struct Size { unsigned x, y, z; };
static Size threadIdx, blockIdx, blockDim, gridDim;

static ucontext_t scheduler;
static ucontext_t* running;

static void __syncthreads() { swapcontext(running, &scheduler); }

static REAL __shfl_down_sync(unsigned, REAL value, int step)
{
    static REAL shown[1024];
    const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
    shown[thread] = value;
    __syncthreads();
    const REAL found = thread % 32 + step < 32 ? shown[thread + step] : value;
    __syncthreads();
    return found;
}

#include "kernels.cu"

struct Arguments {
    const REAL* a;
    const REAL* b;
    REAL* c;
    const int* n;
    const long long* s;
    bool tiled;
};
static Arguments given;

static bool ended;

static void thread()
{
    const Arguments& g = given;
    (g.tiled ? matmul_tiled : matmul_long)(
        g.a, g.b, g.c, g.n[0], g.n[1], g.n[2], g.n[3],
        g.s[0], g.s[1], g.s[2], g.s[3], g.s[4], g.s[5], g.s[6], g.s[7],
        g.s[8], g.s[9], g.s[10], g.s[11]);
    ended = true;
    swapcontext(running, &scheduler);
}

static void run_block()
{
    const size_t stack_bytes = 1 << 14;
    static std::vector<char> stacks(1024 * stack_bytes);
    const unsigned count = blockDim.x * blockDim.y * blockDim.z;
    std::vector<ucontext_t> fibers(count);
    for (unsigned i = 0; i < count; ++i) {
        getcontext(&fibers[i]);
        fibers[i].uc_stack.ss_sp = &stacks[i * stack_bytes];
        fibers[i].uc_stack.ss_size = stack_bytes;
        makecontext(&fibers[i], thread, 0);
    }
    std::vector<bool> done(count);
    for (unsigned left = count; left > 0;) {
        for (unsigned i = 0; i < count; ++i) {
            if (done[i]) continue;
            threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
            running = &fibers[i];
            ended = false;
            swapcontext(&scheduler, running);
            done[i] = ended;
            left -= ended;
        }
    }
}

extern "C" void launch(
    int tiled, const unsigned* grid, const unsigned* block,
    const REAL* a, const REAL* b, REAL* c, const int* n, const long long* s)
{
    given = {a, b, c, n, s, tiled != 0};
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
                run_block();
            }
}
