/* Heap and arenas: counting, alignment, failing, marks, merging. */
#include "unit/faults.h"

#include <pthread.h>
#include <string.h>

#include "base/arena.h"
#include "base/memory.h"

static void counts_what_is_live(void **state)
{
    (void)state;
    mn__memory_stats before = mn__memory_now();
    char *a = mn__malloc(100), *b = mn__calloc(10, 7);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_int_equal((uintptr_t)b % 64, 0);
    for (int i = 0; i < 70; i++)
        assert_int_equal(b[i], 0);
    assert_int_equal(mn__memory_now().bytes, before.bytes + 170);
    assert_int_equal(mn__memory_now().blocks, before.blocks + 2);
    memset(a, 'x', 100);
    a = mn__realloc(a, 1000);
    assert_int_equal(a[99], 'x');
    assert_int_equal(mn__memory_now().bytes, before.bytes + 1070);
    a = mn__realloc(a, 10);
    assert_int_equal(a[9], 'x');
    mn__free(a);
    mn__free(b);
    mn__free(NULL);
    assert_int_equal(mn__memory_now().bytes, before.bytes);
    assert_int_equal(mn__memory_now().blocks, before.blocks);
    assert_int_equal(mn__memory_now().allocations, before.allocations + 4);
    assert_true(mn__memory_now().peak_bytes >= before.bytes + 1070);
}

static void refuses_impossible_sizes(void **state)
{
    (void)state;
    assert_null(mn__malloc(-1));
    assert_null(mn__malloc(INT64_MAX));
    assert_null(mn__calloc(INT64_MAX / 2, 3));
    assert_null(mn__calloc(-1, 3));
    assert_int_equal(mn__size_product(1 << 20, 1 << 20), INT64_C(1) << 40);
    assert_int_equal(mn__size_product(INT64_C(1) << 40, INT64_C(1) << 40), -1);
    assert_int_equal(mn__size_product(-1, 1), -1);
    void *empty = mn__malloc(0);
    assert_non_null(empty);
    mn__free(empty);
}

static void fails_the_nth(void **state)
{
    (void)state;
    mn__memory_fail_nth(2);
    void *first = mn__malloc(1), *second = mn__malloc(1), *third = mn__malloc(1);
    assert_non_null(first);
    assert_null(second);
    assert_non_null(third);
    mn__memory_fail_nth(1);
    assert_null(mn__realloc(first, 100)); /* keeps the old block */
    mn__free(first);
    mn__free(third);
    mn__memory_fail_nth(1);
    assert_null(mn__strdup("abc"));
    char *copy = mn__strdup("abc");
    assert_string_equal(copy, "abc");
    mn__free(copy);
}

static void *count_failures(void *failures)
{
    for (int i = 0; i < 20000; i++) {
        void *block = mn__malloc(i % 100);
        *(int *)failures += block == NULL;
        mn__free(block);
    }
    return NULL;
}

static void threads_share_the_counts(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    int failures[THREADS] = {0}, total = 0;
    mn__memory_stats before = mn__memory_now();
    mn__memory_fail_nth(30000);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_failures, &failures[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        total += failures[i];
    }
    assert_int_equal(total, 1);
    assert_int_equal(mn__memory_now().bytes, before.bytes);
    assert_int_equal(mn__memory_now().allocations, before.allocations + THREADS * 20000 - 1);
}

static void arena_hands_out_aligned_memory(void **state)
{
    (void)state;
    mn__arena arena;
    mn__arena_init(&arena, 256);
    assert_null(mn__arena_alloc(&arena, -1));
    assert_null(mn__arena_alloc(&arena, INT64_MAX));
    assert_null(mn__arena_alloc(&arena, INT64_MAX - 100));
    assert_null(mn__arena_calloc(&arena, INT64_MAX, 2));
    char *last = NULL;
    for (int64_t bytes = 0; bytes < 1000; bytes += 37) {
        char *data = mn__arena_alloc(&arena, bytes);
        assert_non_null(data);
        assert_int_equal((uintptr_t)data % 64, 0);
        assert_ptr_not_equal(data, last);
        memset(data, 1, (size_t)bytes);
        last = data;
    }
    int64_t *zeros = mn__arena_calloc(&arena, 30, 8);
    for (int i = 0; i < 30; i++)
        assert_int_equal(zeros[i], 0);
    assert_string_equal(mn__arena_strdup(&arena, "memory"), "memory");
    assert_string_equal(mn__arena_printf(&arena, "%d of %s", 3, "four"), "3 of four");
    mn__arena_free(&arena);
}

static void marks_give_back(void **state)
{
    (void)state;
    mn__arena arena;
    mn__arena_init(&arena, 256);
    mn__arena_mark empty = mn__arena_mark_now(&arena);
    char *kept = mn__arena_strdup(&arena, "kept");
    mn__arena_mark mark = mn__arena_mark_now(&arena);
    int64_t used = arena.used;
    void *first = mn__arena_alloc(&arena, 64);
    for (int i = 0; i < 20; i++)
        assert_non_null(mn__arena_alloc(&arena, 200));
    mn__arena_release(&arena, mark);
    assert_int_equal(arena.used, used);
    assert_string_equal(kept, "kept");
    assert_ptr_equal(mn__arena_alloc(&arena, 64), first);
    int64_t allocations = mn__memory_now().allocations;
    for (int i = 0; i < 20; i++) /* the blocks were kept */
        assert_non_null(mn__arena_alloc(&arena, 200));
    assert_int_equal(mn__memory_now().allocations, allocations);
    mn__arena_release(&arena, empty);
    assert_int_equal(arena.used, 0);
    assert_ptr_equal(mn__arena_alloc(&arena, 5), kept);
    mn__arena_free(&arena);
}

/* A step that needs a little more or less each time, nested marks and a block
 * larger than the arena's own. */
static void run_step(mn__arena *arena, int step)
{
    mn__arena_reset(arena);
    for (int i = 0; i < 10; i++)
        assert_non_null(mn__arena_alloc(arena, 700 - 100 * (step % 3)));
    mn__arena_mark mark = mn__arena_mark_now(arena);
    assert_non_null(mn__arena_alloc(arena, 5000));
    mn__arena_release(arena, mark);
    assert_non_null(mn__arena_alloc(arena, 4000));
}

static void steps_reach_a_fixed_size(void **state)
{
    (void)state;
    mn__arena arena;
    mn__arena_init(&arena, 1000);
    for (int step = 0; step < 3; step++)
        run_step(&arena, step);
    mn__memory_stats third = mn__memory_now();
    for (int step = 3; step < 100; step++)
        run_step(&arena, step);
    assert_int_equal(mn__memory_now().allocations, third.allocations);
    assert_int_equal(mn__memory_now().bytes, third.bytes);
    assert_true(third.bytes <= arena.peak + 1000); /* one block of the peak */
    mn__arena_free(&arena);
    assert_null(arena.first);
}

static void arena_survives_failures(void **state)
{
    (void)state;
    mn__memory_stats before = mn__memory_now();
    for (int64_t nth = 1; nth <= 8; nth++) {
        mn__arena arena;
        mn__arena_init(&arena, 100);
        mn__memory_fail_nth(nth);
        int failures = 0;
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < 3; i++) {
                char *data = mn__arena_alloc(&arena, 100);
                failures += data == NULL;
                if (data)
                    memset(data, 2, 100);
            }
            mn__arena_reset(&arena);
        }
        mn__memory_fail_nth(0);
        assert_true(failures <= 1);
        mn__arena_free(&arena);
    }
    assert_int_equal(mn__memory_now().bytes, before.bytes);
}

/* A request that grows in every round holds the largest, not all of them. */
static void arena_replaces_what_is_too_small(void **state)
{
    (void)state;
    mn__arena arena;
    mn__arena_init(&arena, 256);
    int64_t before = mn__memory_now().bytes, allocations = mn__memory_now().allocations;
    for (int64_t bytes = 1000; bytes <= 100000; bytes += 1000) {
        mn__arena_mark mark = mn__arena_mark_now(&arena);
        assert_non_null(mn__arena_alloc(&arena, 128));
        assert_non_null(mn__arena_alloc(&arena, bytes));
        mn__arena_release(&arena, mark);
    }
    assert_in_range(mn__memory_now().bytes - before, 100000, 150000);
    assert_in_range(mn__memory_now().allocations - allocations, 2, 30);
    mn__arena_free(&arena);
    assert_int_equal(mn__memory_now().bytes, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_replaces_what_is_too_small),
        cmocka_unit_test(counts_what_is_live),
        cmocka_unit_test(refuses_impossible_sizes),
        cmocka_unit_test(fails_the_nth),
        cmocka_unit_test(threads_share_the_counts),
        cmocka_unit_test(arena_hands_out_aligned_memory),
        cmocka_unit_test(marks_give_back),
        cmocka_unit_test(steps_reach_a_fixed_size),
        cmocka_unit_test(arena_survives_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
