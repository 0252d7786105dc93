/* The use of the library that include/mneme.h begins with, as a program: example MODEL BOOK SESSION
 * reads the book into a session's file and goes on with its text. Built against an installed
 * library by test_install.sh, which compares it with the header's lines. */
#include <mneme.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool show(void *user, int64_t done, int64_t total)
{
    (void)user;
    fprintf(stderr, "%lld of %lld\n", (long long)done, (long long)total);
    return true;
}

static bool print(void *user, const char *text, int64_t bytes)
{
    return fwrite(text, 1, (size_t)bytes, user) == (size_t)bytes;
}

static mn_status read_book(const char *path, const char *book, const char *file)
{
    mn_model *model = NULL;
    mn_session *session = NULL;
    int32_t *ids = NULL;
    int64_t count;
    mn_sync sync;
    mn_error error;
    mn_status status = mn_model_open(&model, path, NULL, &error);
    if (status == MN_OK)
        status = mn_tokenize(model, MN_TURN_RAW, book, strlen(book), &ids, &count, &error);
    if (status == MN_OK)
        status = mn_session_open(&session, model, NULL, &error);
    if (status == MN_OK)
        status = mn_session_sync(session, ids, count, show, NULL, &sync, &error);
    if (status == MN_OK)
        status = mn_session_save(session, file, &error);
    const mn_generate_options how = {.tokens = 100};
    if (status == MN_OK)
        status = mn_session_generate(session, &how, print, stdout, NULL, &error);
    if (status != MN_OK)
        fprintf(stderr, "%s (%s)\n", error.message, error.hint);
    mn_free(ids);
    mn_session_free(session);
    mn_model_free(model);
    return status;
}

/* The whole file as a text, or NULL. */
static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = file ? calloc(1, 1 << 20) : NULL;
    if (text && fread(text, 1, (1 << 20) - 1, file) == 0)
        text[0] = '\0';
    if (file)
        fclose(file);
    return text;
}

int main(int argc, char **argv)
{
    char *book = argc == 4 ? read_file(argv[2]) : NULL;
    if (!book || strcmp(mn_version(), MN_VERSION) != 0)
        return 1;
    mn_status status = read_book(argv[1], book, argv[3]);
    free(book);
    return status == MN_OK ? 0 : 1;
}
